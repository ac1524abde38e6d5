"""What the hops of a voice cost in this process, measured as they will be computed.

That is: streams at a client's rate, in the computing thread, with a pause before each hop. Hops back to back find
their weights still in the processor's caches and take two thirds of the time.
"""

from __future__ import annotations

import asyncio
import time

import numpy as np

from actors.live import LiveVoice
from rocktop_ray.live.stream import LiveStream, feed_many
from rocktop_ray.protocols import TAKE_RATE
from serve_apps.live.batcher import Batcher
from serve_apps.live.engine import HopCost

_FEW, _MANY = 1, 4
_WARM, _TIMES = 2, 5
_PAUSE = 0.03
_RATE = 44_100
"""Not the converter's own, so that resampling is counted."""


async def hop_cost(name: str, voice: LiveVoice, batcher: Batcher) -> HopCost:
    """Measured on noise, between the turns of others: 14 hops, half a second."""
    few, many = [await _seconds(voice, streams, batcher) for streams in (_FEW, _MANY)]
    each = max(0.0, many - few) / (_MANY - _FEW)
    return HopCost(name, fixed=max(0.0, few - _FEW * each), each=each, hop=voice.converter.hop / TAKE_RATE)


async def _seconds(voice: LiveVoice, count: int, batcher: Batcher) -> float:
    """The time of a hop of so many streams at once: the least, as others on the machine only ever add to it."""
    hop = voice.converter.hop * _RATE // TAKE_RATE
    streams = [LiveStream(voice.converter, voice.defaults, rate=_RATE) for _ in range(count)]
    block = (np.random.default_rng(0).standard_normal(hop) * 0.1).astype(np.float32)

    def feed() -> float:
        began = time.perf_counter()
        feed_many(streams, [block] * count)
        return time.perf_counter() - began

    taken = []
    for _ in range(_WARM + _TIMES):
        await asyncio.sleep(_PAUSE)
        taken.append(await asyncio.wrap_future(batcher.call(feed)))
    return min(taken[_WARM:])
