"""What hops of a voice cost on this machine, so that no more streams are let in than can be served in time."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

import numpy as np

from rocktop_ray.live.converter import LiveConverter
from rocktop_ray.protocols import TAKE_RATE
from rocktop_ray.settings import ConvertSettings


@dataclass(frozen=True)
class HopSeconds:
    """``fixed + each * n`` seconds for one hop of ``n`` streams at once."""

    fixed: float
    each: float
    hop: float
    """Seconds of audio in a hop."""

    def streams(self, share: float = 1.0) -> int:
        """How many streams one thread can serve in ``share`` of its time."""
        left = self.hop * share - self.fixed
        return 0 if left <= 0 else int(left / max(self.each, 1e-9))


def calibrate(
    converter: LiveConverter, sizes: Sequence[int] = (1, 4), *, hops: int = 8, settings: ConvertSettings | None = None
) -> HopSeconds:
    """Measure on noise, in the calling thread: medians of ``hops`` hops (after two to warm up) of ``sizes`` streams at
    once, and the line through them. ``sizes`` are at least two, all different.
    """
    random = np.random.default_rng(0)
    wanted = settings or ConvertSettings()
    taken = []
    for size in sizes:
        states, seconds = [converter.begin()] * size, []
        for _ in range(hops + 2):
            audio = [(random.standard_normal(converter.hop) * 0.1).astype(np.float32) for _ in range(size)]
            began = time.perf_counter()
            states, _ = converter.step_many(states, audio, [wanted] * size, [False] * size)
            seconds.append(time.perf_counter() - began)
        taken.append(median(seconds[2:]))
    each, fixed = np.polyfit(sizes, taken, 1)
    return HopSeconds(max(0.0, float(fixed)), max(0.0, float(each)), converter.hop / TAKE_RATE)
