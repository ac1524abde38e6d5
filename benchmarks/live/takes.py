"""What is sent: singing of the repository, and clicks."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile

from benchmarks.live.figures import Array
from rocktop_ray.audio.resample import StreamResampler

SAMPLES = Path(__file__).parents[2] / "assets" / "samples"
CLIPS = ("vocadito_10.wav", "vocadito_14.wav")


def sung(seconds: float, rate: int, clip: int = 0) -> Array:
    """Mono, peak 0.9, the clip repeated as often as needed."""
    audio, own = soundfile.read(SAMPLES / CLIPS[clip % len(CLIPS)], dtype="float32")
    mono = audio if audio.ndim == 1 else audio.mean(1)
    if own != rate:
        stream = StreamResampler(own, rate)
        mono = np.concatenate([stream.push(mono), stream.finish()])
    return np.resize(mono * np.float32(0.9 / np.abs(mono).max()), round(seconds * rate)).astype(np.float32)


@dataclass(frozen=True)
class Clicks:
    """``wave`` has ``pulse`` at each of ``positions``."""

    wave: Array
    positions: tuple[int, ...]
    pulse: Array


def clicks(seconds: float, rate: int) -> Clicks:
    """A short pulse about three times a second, never at the same place of a block."""
    pulse = (0.8 * np.hanning(max(5, round(0.001 * rate)))).astype(np.float32)
    wave = np.zeros(round(seconds * rate), np.float32)
    random = np.random.default_rng(1)
    positions, at = [], round(0.5 * rate)
    while at + len(pulse) < len(wave):
        wave[at : at + len(pulse)] = pulse
        positions.append(at)
        at += round(rate * random.uniform(0.25, 0.45))
    return Clicks(wave, tuple(positions), pulse)
