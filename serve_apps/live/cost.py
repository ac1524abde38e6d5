"""What the hops of a voice cost on this machine, measured."""

from __future__ import annotations

import asyncio
import statistics
import time

import numpy as np

from rocktop_ray.live.converter import LiveConverter, LiveState
from rocktop_ray.protocols import TAKE_RATE
from rocktop_ray.settings import ConvertSettings
from serve_apps.live.batcher import Batcher
from serve_apps.live.engine import HopCost

_FEW, _MANY = 1, 3
_WARM, _TIMES = 2, 5


async def hop_cost(voice: str, converter: LiveConverter, batcher: Batcher) -> HopCost:
    """Measured on noise in the computing thread itself, hop by hop between the turns of streams. About 20 hops."""
    few, many = [await _seconds(converter, sessions, batcher) for sessions in (_FEW, _MANY)]
    each = max(0.0, many - few) / (_MANY - _FEW)
    return HopCost(voice, fixed=max(0.0, few - _FEW * each), each=each, hop=converter.hop / TAKE_RATE)


async def _seconds(converter: LiveConverter, sessions: int, batcher: Batcher) -> float:
    random = np.random.default_rng(0)
    hops = [(random.standard_normal(converter.hop) * 0.1).astype(np.float32) for _ in range(sessions)]
    settings, no = [ConvertSettings()] * sessions, [False] * sessions
    states = [converter.begin() for _ in range(sessions)]

    def step() -> tuple[list[LiveState], float]:
        began = time.perf_counter()
        after, _ = converter.step_many(states, hops, settings, no, no)
        return after, time.perf_counter() - began

    taken = []
    for _ in range(_WARM + _TIMES):
        states, seconds = await asyncio.wrap_future(batcher.call(step))
        taken.append(seconds)
    return statistics.median(taken[_WARM:])
