"""Pieces of a long take for metrics that are made for a few seconds."""

from __future__ import annotations

import numpy as np

from rocktop_ray.audio.level import from_db, rms
from rocktop_ray.protocols import Array

_QUIET = from_db(-60.0)


def sounding_windows(reference: Array, size: int, least: int) -> list[slice]:
    """Windows of ``size`` samples, one after another, in which the reference sounds (RMS above -60 dBFS).

    The last one is moved back to the end of the take so that all are equally long; of a take shorter than ``size``
    there is one window. Empty if the take is shorter than ``least`` samples, or quiet all through.
    """
    if len(reference) < least:
        return []
    starts = list(range(0, max(1, len(reference) - size + 1), size))
    rest = len(reference) - (starts[-1] + size)
    if rest >= least:
        starts.append(len(reference) - size)
    windows = [slice(start, min(start + size, len(reference))) for start in starts]
    return [window for window in windows if rms(reference[window]) > _QUIET]


def mean_or_none(values: list[float]) -> float | None:
    """The mean, None of nothing."""
    return float(np.mean(values)) if values else None
