"""Where a take is sliced, from its levels alone: an hour is 240 000 numbers.

The cuts at pauses and their pieces are those of RVC's preprocessing (openvpi's slicer, then 3.7 s that overlap by 0.3).
All ends lie on the grid of content units (20 ms), so that units and F0 of a longer stretch can be cut like the audio.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from rocktop_ray.audio.level import from_db
from rocktop_ray.audio.slice import spans_of_levels
from rocktop_ray.protocols import Array
from train_loops.dataset.config import LONGEST_SLICE, DatasetConfig

PART_SECONDS = 28.0
"""Longest stretch that goes through the networks at once, without its context: with it one window of Whisper."""
CONTEXT_SECONDS = 1.0
"""Real audio on both sides of a part, as RVC converts with. Beyond the ends of a take it is mirrored."""

Span = tuple[int, int]
"""First and one-past-last sample at the voice's rate."""


class FrameLevels:
    """RMS of 60 ms around every 15 ms, block by block; as ``audio.slice`` measures it."""

    def __init__(self, rate: int) -> None:
        self.hop = max(1, round(rate * 15 / 1000))
        self.samples = 0
        self._sums: list[npt.NDArray[np.float64]] = []
        self._rest = np.zeros(0, np.float32)

    def add(self, block: npt.NDArray[np.floating]) -> None:
        """Takes in ``[n]``."""
        self.samples += len(block)
        joined = np.concatenate([self._rest, block])
        whole = len(joined) // self.hop * self.hop
        # A copy: a view would keep the block.
        self._rest = joined[whole:].copy()
        if whole:
            blocks = joined[:whole].reshape(-1, self.hop)
            self._sums.append(np.square(blocks, dtype=np.float64).sum(axis=1))

    def levels(self) -> npt.NDArray[np.float64]:
        """``[samples // hop + 1]``; zeros are assumed outside the take."""
        rest = np.square(self._rest, dtype=np.float64).sum()
        sums = np.concatenate([np.zeros(2), *self._sums, [rest], np.zeros(2)])
        frames = self.samples // self.hop + 1
        return np.sqrt(np.convolve(sums, np.ones(4), "valid")[:frames] / (4 * self.hop))


@dataclass(frozen=True)
class Slices:
    """What is kept of a take."""

    spans: list[Span]
    short: int = 0
    """Slices that were shorter than wanted."""
    silent: int = 0
    """Slices in which nothing sounds."""


def plan_slices(levels: npt.NDArray[np.float64], samples: int, config: DatasetConfig) -> Slices:
    """Where a take of ``samples`` at the voice's rate is sliced; ``levels`` as ``FrameLevels`` has them."""
    pauses = [(0, samples)]
    if config.slicing != "fixed":
        pauses = spans_of_levels(levels, samples, config.rate, config.slicer)
    hop = max(1, round(config.rate * 15 / 1000))
    grid = config.rate // 50
    sounds = levels >= from_db(config.threshold_db)
    kept: list[Span] = []
    short = silent = 0
    for begin, end in pauses:
        for start, stop in _pieces(begin, end, config):
            start, stop = start // grid * grid, stop // grid * grid
            if stop - start < config.min_slice_seconds * config.rate:
                short += 1
            elif not sounds[start // hop : -(-stop // hop) + 1].any():
                silent += 1
            else:
                kept.append((start, stop))
    return Slices(kept, short, silent)


def _pieces(begin: int, end: int, config: DatasetConfig) -> list[Span]:
    length = round(config.slice_seconds * config.rate)
    if config.slicing == "pauses":
        count = -(-(end - begin) // length)
        edges = [begin + (end - begin) * number // count for number in range(count + 1)]
        return list(pairwise(edges))
    step = round((config.slice_seconds - config.overlap) * config.rate)
    longest = min(length + round(config.overlap * config.rate), round(LONGEST_SLICE * config.rate))
    pieces = []
    while end - begin > longest:
        pieces.append((begin, begin + length))
        begin += step
    return [*pieces, (begin, end)]


def group(spans: list[Span], rate: int) -> list[list[Span]]:
    """Consecutive slices in parts of at most ``PART_SECONDS`` from the first's begin to the last's end."""
    parts: list[list[Span]] = []
    for span in spans:
        if parts and span[1] - parts[-1][0][0] <= PART_SECONDS * rate:
            parts[-1].append(span)
        else:
            parts.append([span])
    return parts


def level_gain(wave: Array, kind: str) -> float:
    """The factor of a slice: RVC's ``0.675 / peak + 0.25``, bounded so that the result stays within 0.99.

    RVC lets a slice that was above full scale stay above it.
    """
    largest = float(np.abs(wave).max(initial=0.0))
    if kind == "none" or largest <= 0:
        return 1.0
    return min(0.9 * 0.75 / largest + 0.25, 0.99 / largest)
