"""What the hops of a voice cost in this process, measured as they will be computed.

That is: streams at a client's rate, in the computing thread, with a pause before each hop. Hops back to back find
their weights still in the processor's caches and take two thirds of the time.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable
from pathlib import Path
from weakref import ref

import numpy as np

from actors.live import LiveVoice
from rocktop_ray.errors import RocktopError
from rocktop_ray.live.stream import LiveStream, feed_many
from rocktop_ray.protocols import TAKE_RATE
from serve_apps.live.compute.batcher import Batcher
from serve_apps.live.engine import HopCost
from serve_apps.priority import standing_back

_FEW, _MANY = 1, 4
_ALONE = 0.6
"""Share of a hop from which on there is no room for a second stream, and several at once are not measured."""
_WARM, _TIMES = 2, 5
_PAUSE = 0.03
_RATE = 44_100
"""Not the converter's own, so that resampling is counted."""
_AGAIN_SECONDS = 10.0
"""Between two measurements of a voice."""
_MOST = 1000
_SCHEDULED = Path("/proc/thread-self/schedstat")


class Costs:
    """What voices cost here: measured when first asked for, and once more when nobody sings, as the first time is often
    while a machine is busy with starting; anew, now and then, while nobody could be let in. The least counts: others
    on the machine only ever add to it.
    """

    def __init__(self, batcher: Batcher, load: float, idle: Callable[[], bool]) -> None:
        """load: share of a hop beyond which nobody can be let in. idle: whether nobody sings here."""
        self._batcher, self._load, self._idle = batcher, load, idle
        self._known: dict[str, tuple[HopCost, float]] = {}
        """By voice, and when it was measured last."""
        self._measuring: dict[str, asyncio.Task[HopCost]] = {}
        self._later: set[asyncio.Task[None]] = set()

    async def of(self, name: str, voice: LiveVoice) -> HopCost:
        """The cost of a hop of ``voice``, whose id is ``name``."""
        if name in self._known:
            cost, at = self._known[name]
            if cost.fixed + cost.each <= self._load * cost.hop or time.monotonic() - at < _AGAIN_SECONDS:
                return cost
        measuring = self._measuring.get(name)
        if measuring is None or measuring.done():
            measuring = self._measuring[name] = asyncio.create_task(self._measured(name, voice))
        return await asyncio.shield(measuring)

    def close(self) -> None:
        """Measure no more."""
        for task in self._later:
            task.cancel()

    async def _measured(self, name: str, voice: LiveVoice) -> HopCost:
        first = name not in self._known and self._idle()  # nobody can be fed here meanwhile who would wait for it
        cost = await hop_cost(name, voice, self._batcher, behind=first)
        if name in self._known:
            cost = min(cost, self._known[name][0], key=lambda each: each.fixed + each.each)
        else:
            later = asyncio.create_task(self._again(name, ref(voice)))
            self._later.add(later)
            later.add_done_callback(self._later.discard)
        self._known[name] = cost, time.monotonic()
        while len(self._known) > _MOST:
            oldest = next(iter(self._known))
            del self._known[oldest]
            self._measuring.pop(oldest, None)
        return cost

    async def _again(self, name: str, voice: ref[LiveVoice]) -> None:
        """Measure once more, as soon as nobody sings; unless the voice was given up meanwhile."""
        await asyncio.sleep(_AGAIN_SECONDS)
        while not self._idle():
            await asyncio.sleep(_AGAIN_SECONDS)
        opened = voice()
        if opened is not None and name in self._known:
            with contextlib.suppress(RocktopError):
                await self._measured(name, opened)


async def hop_cost(name: str, voice: LiveVoice, batcher: Batcher, *, behind: bool = False) -> HopCost:
    """Measured on noise, between the turns of others: 14 hops, half a second for the bundle.

    behind: all that others of the machine compute. Where a replica was lost, there are those who sing.
    """
    hop = voice.converter.hop / TAKE_RATE
    few = await _seconds(voice, _FEW, batcher, behind)
    if few > _ALONE * hop:
        return HopCost(name, fixed=0.0, each=few, hop=hop)
    many = await _seconds(voice, _MANY, batcher, behind)
    each = max(0.0, many - few) / (_MANY - _FEW)
    return HopCost(name, fixed=max(0.0, few - _FEW * each), each=each, hop=hop)


async def _seconds(voice: LiveVoice, count: int, batcher: Batcher, behind: bool) -> float:
    """The time of a hop of so many streams at once: the least of some."""
    hop = voice.converter.hop * _RATE // TAKE_RATE
    streams = [LiveStream(voice.converter, voice.defaults, rate=_RATE) for _ in range(count)]
    block = (np.random.default_rng(0).standard_normal(hop) * 0.1).astype(np.float32)

    def feed() -> float:
        with standing_back(behind):
            return undisturbed(lambda: feed_many(streams, [block] * count))

    taken = []
    for _ in range(_WARM + _TIMES):
        await asyncio.sleep(_PAUSE)
        taken.append(await asyncio.wrap_future(batcher.call(feed)))
    return min(taken[_WARM:])


def undisturbed(work: Callable[[], object]) -> float:
    """Seconds that ``work`` takes, less those that this thread waited for a processor that others had."""
    began, waited = time.perf_counter(), _waited()
    work()
    return max(0.0, time.perf_counter() - began - (_waited() - waited))


def _waited() -> float:
    """Seconds so far that this thread could have run and did not; 0 where the system does not tell."""
    try:
        return int(_SCHEDULED.read_text().split()[1]) / 1e9
    except (OSError, ValueError, IndexError):
        return 0.0
