"""How well a converted take keeps the melody of its source."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from rocktop_ray.protocols import Array


@dataclass(frozen=True)
class F0Agreement:
    """Two melodies compared frame by frame. None where no frame, or no movement, is there to compare."""

    correlation: float | None
    """Pearson's, of log F0 over the frames voiced in both."""
    rmse_cents: float | None
    """Root mean square distance over the frames voiced in both, the key taken off."""
    median_cents: float | None
    """Median distance over the same frames: octave errors do not move it."""
    voicing_f1: float | None
    """Harmonic mean of precision and recall of "voiced", the source being right."""
    frames: int
    """Frames voiced in both."""
    key: float
    """Semitones taken off the result."""


def best_key(source_f0: Array, result_f0: Array) -> int:
    """Whole semitones from source to result: the rounded median interval of the frames voiced in both, else 0."""
    cents = _cents(source_f0, result_f0)
    return round(float(np.median(cents)) / 100) if len(cents) else 0


def f0_agreement(source_f0: Array, result_f0: Array, key: float = 0.0) -> F0Agreement:
    """Compares F0 ``[frames]`` in Hz (0 = unvoiced) of source and result; the longer one is cut.

    ``key``: semitones by which the result was meant to be higher.
    """
    size = min(len(source_f0), len(result_f0))
    source, result = np.asarray(source_f0[:size], np.float64), np.asarray(result_f0[:size], np.float64)
    voiced, heard = source > 0, result > 0
    both = voiced & heard
    marked = int(voiced.sum() + heard.sum())
    f1 = 2 * int(both.sum()) / marked if marked else None
    if not both.any():
        return F0Agreement(None, None, None, f1, 0, key)
    cents = _cents(source_f0, result_f0) - 100 * key
    return F0Agreement(
        correlation=_correlation(np.log2(source[both]), np.log2(result[both])),
        rmse_cents=float(np.sqrt(np.mean(cents**2))),
        median_cents=float(np.median(np.abs(cents))),
        voicing_f1=f1,
        frames=int(both.sum()),
        key=key,
    )


def _cents(source_f0: Array, result_f0: Array) -> npt.NDArray[np.float64]:
    """From source to result, frames voiced in both."""
    size = min(len(source_f0), len(result_f0))
    source, result = np.asarray(source_f0[:size], np.float64), np.asarray(result_f0[:size], np.float64)
    both = (source > 0) & (result > 0)
    return np.asarray(1200 * np.log2(result[both] / source[both]))


def _correlation(a: npt.NDArray[np.float64], b: npt.NDArray[np.float64]) -> float | None:
    a, b = a - a.mean(), b - b.mean()
    scale = np.sqrt(np.sum(a**2) * np.sum(b**2))
    # A melody of one note has no movement to follow.
    return float(np.sum(a * b) / scale) if scale > 1e-9 * len(a) else None
