"""Calls of a training run's listeners without the training, and voices to register."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tiny_voices import tiny_file
from toy_training import toy_recipe

from rocktop_ray.config.training import TrainingConfig
from rocktop_ray.features.index import RetrievalIndex
from rocktop_ray.voices.rvc_format import read_rvc, write_rvc
from train_loops.rvc.callbacks import Facts, Outcome, Sample, Standing, ValidationResult
from train_loops.rvc.tracked import Tracked

FINGERPRINT = "0123456789abcdef" * 4
NOBODY: Any = None
"""In place of the training step: these listeners do not look at it."""


def config(uri: str = "", **changes: Any) -> TrainingConfig:
    values = {"name": "anna", "dataset": "https://me:hush-hush@store.example/sets/anna?key=hush-hush", **changes}
    return TrainingConfig.from_mapping({**values, "tracking": {"uri": uri, "experiment": "songs"}})


def facts(notes: dict[str, Any] | None = None, resumed_from: int = 0, **changes: Any) -> Facts:
    networks = {"encoder": "hubert-v1", "extractor": "rmvpe"}
    dataset = {"fingerprint": FINGERPRINT, "counts": {"takes": 7, "slices": 61}, "networks": networks}
    settings = config("http://me:hush-hush@tracking.example", **changes).as_mapping()
    return Facts("anna", toy_recipe(), settings, dataset, {} if notes is None else notes, resumed_from)


def standing(step: int) -> Standing:
    return Standing(step, step // 10, 10, step * 0.5)


def log(tracked: Tracked, step: int, value: float | None = None) -> None:
    loss = 1 / step if value is None else value
    tracked.on_log(standing(step), {"loss/mel": loss, "speed/steps_per_second": 2.0})


def validate(tracked: Tracked, step: int, *, improved: bool = True, samples: int = 1) -> None:
    time = np.arange(8000) / 8000
    wave = (0.3 * np.sin(2 * np.pi * 220 * time)).astype(np.float32)
    made = tuple(Sample(f"take {number}", 8000, wave * 0.5, wave, None) for number in range(samples))
    result = ValidationResult(10 / step, {"validation/mel": 10 / step, "validation/mcd_db": 7.5}, made)
    tracked.on_validation_end(standing(step), result, NOBODY, improved=improved)


def outcome(step: int, reason: Any = "steps") -> Outcome:
    return Outcome(reason, standing(step), step, 10 / step, {})


def voice_files(folder: Path, name: str = "anna", seed: int = 0) -> list[Path]:
    """What ``finish`` leaves: .safetensors, .pth, .index, run.json."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{name}{ending}" for ending in (".safetensors", ".pth", ".index")]
    torch.save(tiny_file(seed=seed), paths[1])
    write_rvc(read_rvc(paths[1]), paths[0])
    RetrievalIndex.build(np.random.default_rng(seed).standard_normal((30, 256))).save(paths[2])
    (folder / "run.json").write_text(json.dumps({"name": name}))
    return [*paths, folder / "run.json"]
