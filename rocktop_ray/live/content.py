"""Content units of a stream: a window of the audio goes through an encoder that needs what is before and after.

The encoders that ship see a whole take. Here they see the audio's last seconds; units near the window's end are made
without what follows, and are made again when it is there.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from rocktop_ray.features.content.whisper import WhisperEncoder
from rocktop_ray.protocols import Array, ContentEncoder

_FORGETS = 3000.0
"""Units (60 s) that the mean and variance of a stream go back."""
_TRUSTED = 150.0
"""Units (3 s) after which a stream's own mean and variance are taken in place of its window's."""


@dataclass(frozen=True)
class ContentState:
    """Mean and variance of the units so far, where units are normalised over the take: ``[dim]`` in float64."""

    count: float
    mean: np.ndarray
    variance: np.ndarray


class ContentWindow:
    """An encoder over windows of a stream. Units that it normalises over a take are normalised over the stream."""

    def __init__(self, encoder: ContentEncoder) -> None:
        self._encoder = encoder
        self._normalised = isinstance(encoder, WhisperEncoder)

    def begin(self) -> ContentState:
        """Nothing heard yet."""
        dim = self._encoder.spec.dim if self._normalised else 0
        return ContentState(0.0, np.zeros(dim), np.zeros(dim))

    def step(self, state: ContentState, audio: Array, first: int, count: int) -> tuple[ContentState, Array]:
        """Audio ``[2 n * 160]`` at 16 kHz -> units ``[n, dim]``; ``count`` from ``first`` on are new to the stream.

        An encoder may come out a unit short; its last one then stands twice.
        """
        wanted = len(audio) // 320
        if isinstance(self._encoder, WhisperEncoder):
            units = self._encoder.features(audio)[:wanted]
            state = _heard(state, units[first : first + count])
            own_mean, own_variance = units.mean(0, dtype=np.float64), units.var(0, dtype=np.float64)
            share = min(1.0, state.count / _TRUSTED)
            mean = share * state.mean + (1 - share) * own_mean
            variance = share * state.variance + (1 - share) * own_variance
            units = ((units - mean) / np.maximum(np.sqrt(variance), 1e-5)).astype(np.float32)
        else:
            units = self._encoder.encode(audio)[:wanted]
        missing = wanted - len(units)
        return state, np.concatenate([units, np.repeat(units[-1:], missing, axis=0)]) if missing else units


def _heard(state: ContentState, units: Array) -> ContentState:
    """Mean and variance with ``units`` ``[n, dim]``, the past counting for at most ``_FORGETS``."""
    before, fresh = min(state.count, _FORGETS), len(units)
    total = before + fresh
    mean, variance = units.mean(0, dtype=np.float64), units.var(0, dtype=np.float64)
    apart = mean - state.mean
    joint = state.mean + apart * fresh / total
    spread = (before * state.variance + fresh * variance) / total + apart**2 * before * fresh / total**2
    return ContentState(total, joint, spread)
