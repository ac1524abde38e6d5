"""The coarse pitch that a voice's prior encoder embeds: 255 steps on a mel scale."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

F0_MIN = 50.0
F0_MAX = 1100.0
BINS = 256
"""Rows of the pitch embedding: bin 0 is never used, 1 is unvoiced or F0_MIN and below, 255 is F0_MAX and above."""


def coarse_pitch(f0: npt.ArrayLike) -> npt.NDArray[np.int64]:
    """F0 in Hz (0 = unvoiced), any shape -> bins 1 to 255, even steps of the mel scale 1127 ln(1 + f / 700)."""
    low, high = _mel(F0_MIN), _mel(F0_MAX)
    scaled = (_mel(np.asarray(f0, np.float64)) - low) * (BINS - 2) / (high - low) + 1
    return np.rint(np.clip(scaled, 1, BINS - 1)).astype(np.int64)


def _mel(hz: npt.ArrayLike) -> npt.NDArray[np.float64]:
    return 1127.0 * np.log1p(np.asarray(hz, np.float64) / 700.0)
