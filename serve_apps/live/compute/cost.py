"""What the hops of a voice cost in this process, measured as they will be computed.

That is: streams at a client's rate, in the computing thread, with a pause before each hop. Hops back to back find
their weights still in the processor's caches and take two thirds of the time. Whoever sings in this process waits for
every hop that is measured, so there it is done in brief: what takes long is not worth that.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from weakref import ref

import numpy as np

from actors.live import LiveVoice
from rocktop_ray.errors import RocktopError
from rocktop_ray.live.entrance import SHAPED, moved_formants
from rocktop_ray.live.stream import LiveStream, feed_many
from rocktop_ray.protocols import ENCODER_RATE, TAKE_RATE
from serve_apps.live.compute.batcher import Batcher
from serve_apps.live.engine import HopCost
from serve_apps.priority import standing_back

_FEW, _MANY = 1, 4
_ALONE = 0.6
"""Share of a hop from which on there is no room for a second stream, and several at once are not measured."""
_HELD_UP = 0.15
"""Seconds of computing after which measuring ends where somebody sings."""
_WARM, _TIMES = 2, 5
_PAUSE = 0.03
_RATE = 44_100
"""Not the converter's own, so that resampling is counted."""
_AGAIN_SECONDS = 10.0
"""Between two measurements of a voice, while nobody sings."""
_DOUBT_SECONDS = 600.0
"""The same where somebody does, of a voice that nobody could be let in with."""
_MOST = 1000
_SCHEDULED = Path("/proc/thread-self/schedstat")


@dataclass(frozen=True)
class _Known:
    """What a voice was found to cost."""

    cost: HopCost
    whole: bool
    """Whether measuring was not cut short."""
    at: float
    """When it was measured last."""


class Costs:
    """What voices cost here: measured when first asked for, and once more when nobody sings, as the first time is often
    while a machine is busy with starting, or cut short; anew, now and then, while nobody could be let in. The least
    counts: others on the machine only ever add to it.
    """

    def __init__(self, batcher: Batcher, load: float, idle: Callable[[], bool]) -> None:
        """load: share of a hop beyond which nobody can be let in. idle: whether nobody sings here."""
        self._batcher, self._load, self._idle = batcher, load, idle
        self._known: dict[str, _Known] = {}
        """By voice."""
        self._measuring: dict[str, asyncio.Task[HopCost]] = {}
        self._later: dict[str, asyncio.Task[None]] = {}

    async def of(self, name: str, voice: LiveVoice) -> HopCost:
        """The cost of a hop of ``voice``, whose id is ``name``, for a session that moves formants."""
        known = self._known.get(name)
        if known is not None and not self._doubted(known):
            return known.cost
        measuring = self._measuring.get(name)
        if measuring is None or measuring.done():
            measuring = self._measuring[name] = asyncio.create_task(self._measured(name, voice))
        return await asyncio.shield(measuring)

    def close(self) -> None:
        """Measure no more."""
        for task in self._later.values():
            task.cancel()

    def _doubted(self, known: _Known) -> bool:
        """Whether nobody can be let in at this cost, and it was found long ago."""
        cost, pause = known.cost, _AGAIN_SECONDS if self._idle() else _DOUBT_SECONDS
        return cost.fixed + cost.each > self._load * cost.hop and time.monotonic() - known.at >= pause

    async def _measured(self, name: str, voice: LiveVoice) -> HopCost:
        first = name not in self._known and self._idle()  # nobody can be fed here meanwhile who would wait for it
        cost, whole = await hop_cost(name, voice, self._batcher, behind=first, busy=lambda: not self._idle())
        known = self._known.get(name)
        if known is not None and known.whole >= whole:
            whole, cost = min((known.whole, known.cost), (whole, cost), key=lambda each: each[1].fixed + each[1].each)
        if (known is None or not whole) and name not in self._later:
            later = self._later[name] = asyncio.create_task(self._again(name, ref(voice)))
            later.add_done_callback(lambda _: self._later.pop(name, None))
        self._known[name] = _Known(cost, whole, time.monotonic())
        while len(self._known) > _MOST:
            oldest = next(iter(self._known))
            del self._known[oldest]
            self._measuring.pop(oldest, None)
        return cost

    async def _again(self, name: str, voice: ref[LiveVoice]) -> None:
        """Measure once more, as soon as nobody sings, and for as long as it takes; unless the voice was given up
        meanwhile, or cannot be measured.
        """
        more = True
        while more:
            await asyncio.sleep(_AGAIN_SECONDS)
            if self._idle():
                more = await self._once_more(name, voice())

    async def _once_more(self, name: str, voice: LiveVoice | None) -> bool:
        """Whether that is to be tried again."""
        if voice is None or name not in self._known:
            return False
        with contextlib.suppress(RocktopError):
            await self._measured(name, voice)
            return name in self._known and not self._known[name].whole
        return False


async def hop_cost(
    name: str, voice: LiveVoice, batcher: Batcher, *, behind: bool = False, busy: Callable[[], bool] = lambda: False
) -> tuple[HopCost, bool]:
    """Measured on noise, between the turns of others: 14 hops, half a second for the bundle. And whether it was done in
    full: where somebody sings it ends sooner, and rather says too much.

    behind: all that others of the machine compute. Where a replica was lost, there are those who sing. busy: whether
    somebody sings here.
    """
    hop = voice.converter.hop / TAKE_RATE
    few, formant, whole = await _seconds(voice, _FEW, batcher, behind, busy)
    held_up = busy() and _MANY * few > _HELD_UP
    if held_up or few > _ALONE * hop:
        return HopCost(name, fixed=0.0, each=few, hop=hop, formant=formant), whole and not held_up
    many, _, both = await _seconds(voice, _MANY, batcher, behind, busy)
    each = max(0.0, many - few) / (_MANY - _FEW)
    fixed = max(0.0, few - _FEW * each)
    return HopCost(name, fixed=fixed, each=each, hop=hop, formant=formant), whole and both


async def _seconds(
    voice: LiveVoice, count: int, batcher: Batcher, behind: bool, busy: Callable[[], bool]
) -> tuple[float, float, bool]:
    """The time of a hop of so many streams at once, that of moving the formants of one, and whether they were measured
    as often as it takes: each the least of some.
    """
    hop, settings = voice.converter.hop * _RATE // TAKE_RATE, replace(voice.defaults, formant=0.0)
    streams = [LiveStream(voice.converter, settings, rate=_RATE) for _ in range(count)]
    noise = (np.random.default_rng(0).standard_normal(hop + SHAPED) * 0.1).astype(np.float32)
    heard = noise[: SHAPED + voice.converter.hop * ENCODER_RATE // TAKE_RATE]

    def feed() -> tuple[float, float]:
        with standing_back(behind):
            fed = undisturbed(lambda: feed_many(streams, [noise[:hop]] * count))
            return fed, undisturbed(lambda: moved_formants(heard, 1.0))

    taken: list[tuple[float, float]] = []
    for _ in range(_WARM + _TIMES):
        await asyncio.sleep(_PAUSE)
        taken.append(await asyncio.wrap_future(batcher.call(feed)))
        hopeless = taken[-1][0] > voice.converter.hop / TAKE_RATE
        if busy() and (hopeless or (len(taken) > 1 and sum(map(sum, taken)) > _HELD_UP)):
            break
    fed, formant = (min(each) for each in zip(*(taken[_WARM:] or taken), strict=True))
    return fed, formant, len(taken) == _WARM + _TIMES


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
