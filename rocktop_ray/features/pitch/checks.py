"""What every pitch extractor asks of its input, and promises of its output."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from rocktop_ray.errors import AudioError, SettingsError
from rocktop_ray.protocols import ENCODER_RATE, FRAME_RATE, Array

HOP = ENCODER_RATE // FRAME_RATE
"""Samples from frame to frame."""
_SILENCE = 1e-6


def frame_count(samples: int) -> int:
    """F0 frames of a take of that many samples at 16 kHz."""
    return samples // HOP + 1


def checked(audio: Array) -> Array:
    """Audio as float32 ``[samples]``. Raises AudioError if it is empty, not one channel or not finite."""
    audio = np.ascontiguousarray(audio, np.float32)
    if audio.ndim != 1:
        raise AudioError(f"pitch needs one channel of audio, [samples], not shape {list(audio.shape)}", stage="pitch")
    if not len(audio):
        raise AudioError("the audio is empty: there is no pitch to find", stage="pitch")
    if not np.isfinite(audio).all():
        raise AudioError("the audio holds NaN or infinite samples: repair or re-export the file", stage="pitch")
    return audio


def is_silent(audio: Array) -> bool:
    """True if no sample reaches -120 dBFS: there is nothing to analyse, every frame is unvoiced."""
    return float(np.abs(audio).max()) < _SILENCE


def analyse(audio: Array, extract: Callable[[Array], Array]) -> Array:
    """Run ``extract`` on checked audio; silence is answered with zeros. -> F0 ``[samples // 160 + 1]``."""
    audio = checked(audio)
    frames = frame_count(len(audio))
    if is_silent(audio):
        return np.zeros(frames, np.float32)
    return fit_length(extract(audio), frames)


def fit_length(f0: Array, frames: int) -> Array:
    """F0 cut, or continued with unvoiced frames, to ``frames``."""
    fitted = np.zeros(frames, np.float32)
    count = min(frames, len(f0))
    fitted[:count] = f0[:count]
    return fitted


def checked_threshold(value: float, low: float = 0.0, high: float = 1.0) -> float:
    """``value`` as a float. Raises SettingsError unless ``low <= value <= high``."""
    if not math.isfinite(value) or not low <= value <= high:
        raise SettingsError(f"the pitch threshold must be between {low} and {high}, not {value}", stage="pitch")
    return float(value)
