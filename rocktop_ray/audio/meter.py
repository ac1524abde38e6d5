"""Level facts of a recording, measured block by block."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from rocktop_ray.audio.level import to_db
from rocktop_ray.audio.loudness import LoudnessMeter
from rocktop_ray.protocols import Array

CLIPPED = 1.0 - 2.0**-15
"""Samples at or above this amplitude count as clipped: full scale of 16 bits."""


@dataclass(frozen=True)
class Levels:
    """Of all channels together."""

    peak_dbfs: float
    rms_dbfs: float
    lufs: float
    """Integrated loudness, ITU-R BS.1770-4."""
    clipped: int
    """Samples at or over full scale."""
    dc_offset: float
    """Mean of all samples, full scale 1."""


def measure(blocks: Iterable[Array], rate: int) -> Levels:
    """Levels of blocks ``[n]`` or ``[n, channels]`` in order."""
    loudness = LoudnessMeter(rate)
    largest, square, total, count, clipped = 0.0, 0.0, 0.0, 0, 0
    for block in blocks:
        magnitude = np.abs(block)
        largest = max(largest, float(magnitude.max(initial=0.0)))
        clipped += int(np.count_nonzero(magnitude >= CLIPPED))
        square += float(np.square(block, dtype=np.float64).sum())
        total += float(block.sum(dtype=np.float64))
        count += block.size
        loudness.add(block)
    count = max(count, 1)
    return Levels(to_db(largest), to_db((square / count) ** 0.5), loudness.integrated, clipped, total / count)
