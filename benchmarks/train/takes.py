"""Recordings to measure with: as many hours as wanted, made here, no two alike."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import soundfile

from rocktop_ray.protocols import Array, ContentEncoder, ContentSpec, PitchExtractor

RATE = 48_000
SECONDS = 27.0
"""Of each take: one part of a dataset."""


def recordings(folder: Path, count: int) -> Path:
    """``count`` takes: gliding notes with overtones, a pause after every two seconds. Those that are there stay."""
    folder.mkdir(parents=True, exist_ok=True)
    time = np.arange(int(SECONDS * RATE)) / RATE
    for number in range(count):
        file = folder / f"{number:05}.wav"
        if file.exists():
            continue
        random = np.random.default_rng(number)
        hertz = (150 + number % 97) * 2 ** (0.2 * np.sin(2 * np.pi * 0.31 * time + number))
        phase = 2 * np.pi * np.cumsum(hertz) / RATE
        tone = sum(np.sin(overtone * phase) / overtone for overtone in range(1, 9)) * 0.1
        take = tone * (time % 2.5 < 2) + 1e-3 * random.standard_normal(len(time))
        soundfile.write(file, take.astype(np.float32), RATE, subtype="PCM_24")
    return folder


class NoiseEncoder:
    """Units of the right shape that cost nothing, where only what comes after them is measured."""

    spec = ContentSpec("noise", 768)

    def encode(self, audio: Array) -> Array:
        """See ``protocols.ContentEncoder``."""
        count = (len(audio) - 400) // 320 + 1
        return np.random.default_rng(count).standard_normal((count, self.spec.dim), np.float32)


class SteadyPitch:
    """One note."""

    name = "steady"

    def f0(self, audio: Array) -> Array:
        """See ``protocols.PitchExtractor``."""
        return np.full(len(audio) // 160 + 1, 220, np.float32)


def encoder(name: str, *, device: str) -> ContentEncoder:
    """For ``dataset.features.Builders``."""
    return NoiseEncoder()


def extractor(name: str, *, device: str) -> PitchExtractor:
    """For ``dataset.features.Builders``."""
    return SteadyPitch()
