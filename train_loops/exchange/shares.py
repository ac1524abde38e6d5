"""How much of each batch a worker gets: in proportion to the speed at which it was seen to work.

The batch of a step stays as large as the recipe says, so that slower workers change how long a step takes, but not what
is learnt. Speeds are measured in a few steps at the start, and anew when the set of workers changes.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from statistics import median

import numpy as np
import torch

from rocktop_ray.errors import SettingsError
from train_loops.exchange.groups import Groups, lost

WARM_UP = 3
"""Steps that are not counted: caches, compilation, choice of kernels."""
MEASURED = 20
"""Steps that are."""


class SpeedMeter:
    """The speed of this worker, from the steps that it tells of."""

    def __init__(self, *, warm_up: int = WARM_UP, measured: int = MEASURED) -> None:
        self._left, self._measured = warm_up, measured
        self._rates: list[float] = []

    def add(self, work: float, seconds: float) -> None:
        """A step with ``work`` frames (or examples, but always the same) in ``seconds`` of its own.

        Take out what it waited in exchanges (``Exchange.seconds``), else all look as slow as the slowest. Steps without
        work tell nothing.
        """
        if work <= 0 or seconds <= 0:
            return
        if self._left:
            self._left -= 1
        elif len(self._rates) < self._measured:
            self._rates.append(work / seconds)

    @property
    def done(self) -> bool:
        """Whether enough steps were measured. Others may be earlier or later: count steps to act together."""
        return len(self._rates) >= self._measured

    @property
    def speed(self) -> float:
        """Median of work per second, which forgives single slow steps; 0 if nothing was measured."""
        return median(self._rates) if self._rates else 0.0


def gather_speeds(groups: Groups, speed: float) -> tuple[float, ...]:
    """The speeds of all workers by rank, the same everywhere. All must call it, at the same step.

    A worker that measured nothing (0) counts as fast as the slowest that did. Raises WorkerLostError.
    """
    with lost(groups, "comparing speeds"):
        found = [float(each) for each in groups.gather(torch.tensor([speed], dtype=torch.float64))]
    known = [each for each in found if each > 0]
    return tuple(each if each > 0 else min(known, default=1.0) for each in found)


def sizes(count: int, speeds: Sequence[float]) -> list[int]:
    """Examples of a batch of ``count`` for each worker: proportional to speed, by largest remainder.

    Nobody gets less than one, unless there are fewer examples than workers; a faster worker never gets less than a
    slower one. The same input gives the same output everywhere; of equals the lower ranks get more.

    Raises SettingsError if a speed is not a positive number, or there are none.
    """
    wanted = np.asarray(speeds, np.float64)
    if count < 0 or not wanted.size or not np.isfinite(wanted).all() or (wanted <= 0).any():
        raise SettingsError(
            f"cannot divide {count} examples by speeds {list(speeds)}: they must be positive numbers", stage="training"
        )
    wanted = wanted / wanted.max()
    least = np.zeros(len(wanted), bool)  # workers that get one because their part would be less
    if count >= len(wanted):
        while True:
            exact = _proportion(wanted, least, count)
            below = ~least & (exact < 1)
            if not below.any():
                break
            least |= below
    else:
        exact = _proportion(wanted, least, count)
    result = np.floor(exact).astype(int)
    order = sorted(range(len(wanted)), key=lambda rank: (result[rank] - exact[rank], -wanted[rank], rank))
    for rank in [rank for rank in order if not least[rank]][: count - int(result.sum())]:
        result[rank] += 1
    return [int(size) for size in result]


def slots(count: int, speeds: Sequence[float]) -> list[range]:
    """``sizes`` as places in the batch: contiguous, by rank, each exactly once."""
    ends = np.cumsum([0, *sizes(count, speeds)])
    return [range(int(start), int(end)) for start, end in pairwise(ends)]


def _proportion(wanted: np.ndarray, least: np.ndarray, count: int) -> np.ndarray:
    rest = np.where(least, 0, wanted)
    total = rest.sum()
    spread = rest / total * (count - int(least.sum())) if total else rest
    # A rounding error must not make 2.9999999999999996 of 3, nor let two ranks of equal speed differ.
    return np.where(least, 1.0, np.round(spread, 9))
