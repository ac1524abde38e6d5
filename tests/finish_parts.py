"""A run that is small enough for tests of what runs leave: its dataset, settings and facts."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from dataset_parts import job, song, write
from training_data import recipe_16k

from rocktop_ray.config.training import TrainingConfig
from train_loops.dataset.build import build_dataset
from train_loops.dataset.reader import Dataset
from train_loops.dataset.runners import LocalRunner
from train_loops.rvc.callbacks import Facts, Outcome, Standing
from train_loops.rvc.resolve import recipe_for


def small_dataset(folder: Path) -> Dataset:
    """Two speakers at 16 kHz, units of width 1; a take of each is held out."""
    for speaker in ("anna", "berta"):
        for number in range(3):
            write(folder / "in" / speaker / f"{number}.wav", song(5 + number, number))
    build_dataset(job(folder / "in", folder / "set", slicing="fixed"), LocalRunner())
    return Dataset.open(folder / "set", held_out=0.05)


def settings(dataset: Dataset, **changes: Any) -> TrainingConfig:
    values = {"name": "anna", "dataset": "sets/anna", "recipe": recipe_16k().as_mapping(), **changes}
    return TrainingConfig.from_mapping(values)


def facts(config: TrainingConfig, dataset: Dataset, resumed_from: int = 0, **notes: Any) -> Facts:
    manifest = dataset.manifest
    about = {
        "fingerprint": manifest.fingerprint,
        "counts": manifest.counts(),
        "networks": asdict(manifest.networks),
    }
    return Facts(config.name, recipe_for(config, manifest), config.as_mapping(), about, dict(notes), resumed_from)


def standing(step: int, per_epoch: int = 10, seconds: float | None = None) -> Standing:
    return Standing(step, step // per_epoch, per_epoch, step / 2 if seconds is None else seconds)


def outcome(step: int, best_step: int = 0, best_score: float | None = None, **metrics: float) -> Outcome:
    return Outcome("steps", standing(step), best_step, best_score, metrics)
