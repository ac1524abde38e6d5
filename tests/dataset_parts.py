"""Recordings and small networks for tests of datasets."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import numpy as np
import soundfile
from stand_ins import LevelEncoder, LevelPitch

from rocktop_ray.protocols import Array, ContentEncoder, PitchExtractor
from rocktop_ray.store.settings import StorageSettings
from rocktop_ray.store.storage import open_storage
from train_loops.dataset.config import DatasetConfig
from train_loops.dataset.features import Builders
from train_loops.dataset.workers import Job

RATE = 16_000


class DyingEncoder(LevelEncoder):
    """Kills its process, once in all: as soon as there is something in ``parts``; ``killed`` then stands there."""

    def __init__(self, parts: Path, killed: Path) -> None:
        super().__init__()
        self._parts, self._killed = parts, killed

    def encode(self, audio: Array) -> Array:
        if not self._killed.exists() and any(self._parts.glob("*/*/*.parquet")):
            self._killed.touch(exist_ok=False)
            os.kill(os.getpid(), signal.SIGKILL)
        return super().encode(audio)


def encoder(name: str, *, device: str) -> ContentEncoder:
    return LevelEncoder()


def dying_encoder(name: str, *, device: str, parts: Path, killed: Path) -> ContentEncoder:
    return DyingEncoder(parts, killed)


def extractor(name: str, *, device: str) -> PitchExtractor:
    return LevelPitch()


def config(**changes: object) -> DatasetConfig:
    """16 kHz, so that little is to be computed."""
    return DatasetConfig.from_mapping({"rate": RATE, "encoder": "level", "pitch": "level", **changes})


def job(source: Path | str, target: Path | str, **changes: object) -> Job:
    reach = StorageSettings.from_environment()
    return Job(
        open_storage(source, reach),
        open_storage(target, reach),
        config(**changes),
        "cpu",
        1,
        Builders(encoder, extractor),
    )


def song(seconds: float, seed: int = 0, rate: int = RATE) -> Array:
    """Notes of 1.6 s with pauses of 0.6 s, and a little noise."""
    generator = np.random.default_rng(seed)
    time = np.arange(round(seconds * rate)) / rate
    hertz = 150 + 40 * (seed + np.floor(time / 2.2)) % 200
    sung = 0.4 * np.sin(2 * np.pi * np.cumsum(hertz) / rate) * (time % 2.2 < 1.6)
    return (sung + 1e-4 * generator.standard_normal(len(time))).astype(np.float32)


def write(path: Path, audio: Array, rate: int = RATE, subtype: str = "FLOAT") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, audio, rate, subtype=subtype)
    return path


def recordings(folder: Path) -> Path:
    """Two speakers: one with three takes, one with a single one of more than a minute."""
    for number in range(3):
        write(folder / "anna" / f"{number}.wav", song(7 + number, number))
    write(folder / "berta" / "long.wav", song(95, 9))
    return folder


def files(folder: Path) -> dict[str, bytes]:
    """Everything below a folder."""
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
