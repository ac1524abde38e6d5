"""A dataset and settings for whole training runs that take seconds."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from dataset_parts import RATE, job, song, write
from toy_training import toy_recipe

from rocktop_ray.config.training import TrainingConfig
from train_loops.dataset.build import build_dataset
from train_loops.dataset.runners import LocalRunner
from train_loops.rvc.recipe import Recipe, SpectrumConfig


def recipe_16k(**changes: Any) -> Recipe:
    """The toy voice for the datasets of ``dataset_parts``: 16 kHz, units of width 1."""
    base = toy_recipe()
    synthesizer = replace(
        base.synthesizer,
        spec_channels=257,
        upsample_rates=(10, 4, 4),
        upsample_kernel_sizes=(20, 8, 8),
        sample_rate=RATE,
        content_dim=1,
    )
    return replace(base, synthesizer=synthesizer, spectrum=SpectrumConfig(n_fft=512, mel_bands=32), **changes)


def small_dataset(folder: Path) -> Path:
    """Two speakers, five takes of some seconds; made without Ray."""
    for number in range(3):
        write(folder / "in" / "anna" / f"{number}.wav", song(5 + number, number))
    for number in range(2):
        write(folder / "in" / "berta" / f"{number}.wav", song(7, 10 + number))
    build_dataset(job(folder / "in", folder / "set"), LocalRunner())
    return folder / "set"


def training_config(dataset: Path | str, out: Path | str, **changes: Any) -> TrainingConfig:
    """A run without validation, tracking and index: twelve steps, a checkpoint after every fourth."""
    base: dict[str, Any] = {
        "name": "anna",
        "dataset": str(dataset),
        "out": str(out),
        "recipe": recipe_16k(batch_size=4).as_mapping(),
        "log_every_steps": 4,
        "stop": {"steps": 12},
        "checkpoints": {"every_steps": 4, "every_minutes": 0.0},
        "validation": {"every_steps": 0},
        "tracking": {"uri": "none"},
        "export": {"index": False},
    }
    return TrainingConfig.from_mapping(_merged(base, changes))


def as_file(config: TrainingConfig, path: Path) -> Path:
    """The settings as a file for ``--config-dir``; JSON is YAML."""
    path.parent.mkdir(parents=True, exist_ok=True)
    values = {"defaults": ["rvc", "_self_"], **config.as_mapping()}
    path.write_text(json.dumps(values))
    return path


def _merged(values: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(values)
    for key, value in changes.items():
        known = merged.get(key)
        both = isinstance(known, Mapping) and isinstance(value, Mapping)
        merged[key] = _merged(known, value) if both else value  # type: ignore[arg-type]
    return merged
