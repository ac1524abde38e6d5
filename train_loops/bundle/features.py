"""Model inputs of the training audio: several versions of the content units per item, and F0."""

from __future__ import annotations

import librosa
import numpy as np
import numpy.typing as npt
import soxr

from rocktop_ray.features.content.whisper import WhisperEncoder
from rocktop_ray.protocols import ENCODER_RATE
from train_loops.bundle.sources import RATE

Floats = npt.NDArray[np.float32]


def to_encoder(audio: Floats) -> Floats:
    """24 kHz -> 16 kHz."""
    return np.asarray(soxr.resample(audio, RATE, ENCODER_RATE, "VHQ"), np.float32)


def stretch(units: Floats, frames: int) -> Floats:
    """Units ``[n, dim]`` -> ``[frames, dim]`` by linear interpolation in time."""
    place = np.linspace(0, len(units) - 1, frames)
    left = np.minimum(place.astype(int), len(units) - 2)
    part = (place - left)[:, None].astype(np.float32)
    return units[left] * (1 - part) + units[left + 1] * part


def disturbed(audio16: Floats, frames: int, encoder: WhisperEncoder, random: np.random.Generator) -> Floats:
    """Units of a copy that sounds like another singer in another room.

    The copy is resampled (pitch, formants and tempo move together by up to 5 semitones; the units are put back on the
    original's time), tilted, put in a short room and made noisy.
    """
    speed = 2 ** (random.choice([-1, 1]) * random.uniform(1.5, 5) / 12)
    copy = soxr.resample(audio16, ENCODER_RATE * speed, ENCODER_RATE, "HQ").astype(np.float64)
    tilt = random.uniform(-0.45, 0.45)
    copy = copy + tilt * np.concatenate([[0.0], copy[:-1]])
    if random.random() < 0.5:
        room = random.normal(size=int(0.25 * ENCODER_RATE)) * np.exp(
            -np.arange(0.25 * ENCODER_RATE) / (random.uniform(0.02, 0.06) * ENCODER_RATE)
        )
        room *= random.uniform(0.1, 0.4) / np.sqrt((room**2).sum())
        room[0] = 1.0
        size = len(copy) + len(room)
        copy = np.fft.irfft(np.fft.rfft(copy, size) * np.fft.rfft(room, size), size)[: len(copy)]
    level = np.sqrt((copy**2).mean()) + 1e-6
    copy += random.normal(size=len(copy)) * level * 10 ** (-random.uniform(20, 50) / 20)
    return stretch(encoder.encode((0.3 * copy / np.abs(copy).max()).astype(np.float32)), frames)


def aligned(units: Floats, other: Floats) -> Floats:
    """Units of another speaker saying the same words -> on the time of ``units``, by dynamic time warping."""

    def unit_length(rows: Floats) -> Floats:
        return rows / (np.linalg.norm(rows, axis=1, keepdims=True) + 1e-6)

    cost = 1 - unit_length(units) @ unit_length(other).T
    _, path = librosa.sequence.dtw(C=cost, step_sizes_sigma=np.array([[1, 1], [1, 2], [2, 1]]), backtrack=True)
    path = path[::-1]
    place = np.interp(np.arange(len(units)), path[:, 0], path[:, 1])
    return other[np.round(place).astype(int)]


def frames_of(samples: int) -> int:
    """F0 frames of ``samples`` at 24 kHz: even, so that units (50/s) and frames (100/s) match."""
    return samples // (RATE // 100) // 2 * 2
