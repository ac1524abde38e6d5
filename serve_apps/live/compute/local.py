"""A live engine in this process: voices, a computing thread, and the streams that it was fed last."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from typing import Protocol
from weakref import WeakValueDictionary

from actors.live import LiveVoice
from rocktop_ray.errors import AudioError
from rocktop_ray.live.stream import LiveStream
from rocktop_ray.protocols import TAKE_RATE
from rocktop_ray.settings import ConvertSettings
from serve_apps.config import LiveConfig
from serve_apps.live.compute.batcher import Batcher, Run
from serve_apps.live.compute.cost import Costs
from serve_apps.live.compute.kept import KeptStreams, join_state, split_state, stream_of
from serve_apps.live.compute.quiet import quietly
from serve_apps.live.engine import Fed, Feed, StreamFacts
from serve_apps.observe.metrics import Metrics
from serve_apps.orders import VoiceRef

_MOST_REFS = 1000


class Voices(Protocol):
    """``actors.live.LiveActor``."""

    def ready(self, ref: VoiceRef) -> LiveVoice | None:
        """The voice if it is there. Quick."""
        ...

    def open(self, ref: VoiceRef) -> LiveVoice:
        """The voice. Blocks."""
        ...


class LocalEngine:
    """Implements ``engine.LiveEngine``. All but opening and computing happens on the caller's event loop."""

    def __init__(
        self,
        voices: Voices,
        config: LiveConfig | None = None,
        *,
        name: str = "here",
        closing: Callable[[], None] | None = None,
    ) -> None:
        """name: what ``Fed.replica`` says. closing: called by ``close`` when nothing is computed any more."""
        self._closing = closing
        self._config, self._voices, self._name = config or LiveConfig(), voices, name
        self._batcher = Batcher(self._config.threads, self._config.batch, Metrics().live_turn)
        self._kept = KeptStreams(self._config.kept)
        self._files = ThreadPoolExecutor(2, "live-files")
        self._orders: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        """By session: feeds that came together are queued in their order."""
        self._refs: OrderedDict[str, VoiceRef] = OrderedDict()
        self._costs = Costs(self._batcher, self._config.load, lambda: not len(self._kept))

    async def open(self, voice: VoiceRef, rate: int, multiple: int, settings: ConvertSettings) -> StreamFacts:
        """See ``engine.LiveEngine``."""
        opened = await self._opened(voice)
        stream = LiveStream(opened.converter, settings, rate=rate, multiple=multiple)
        cost = await self._costs.of(voice.id, opened)
        return StreamFacts(
            delay=stream.delay,
            hop=round(opened.converter.hop * rate / TAKE_RATE),
            exact=opened.converter.exact,
            settings_default=opened.defaults,
            cost=cost if settings.formant else replace(cost, formant=0.0),
        )

    async def feed(self, feed: Feed, spare: Feed | None = None) -> Fed:
        """See ``engine.LiveEngine``."""
        if not feed.pieces or any(not len(piece.samples) for piece in feed.pieces):
            raise AudioError("a feed has at least one piece, and a piece at least one sample")
        order = self._orders.setdefault(feed.session, asyncio.Lock())
        async with order:
            run, done = await self._submitted(feed)
        try:
            await done
        except BaseException:
            self._kept.drop(feed.session, run)
            raise
        left = run.left or run.stream
        return Fed(
            waves=tuple(run.waves),
            delays=tuple(run.delays),
            state=join_state(left, self._refs) if feed.want_state else None,
            seconds=run.seconds,
            waited=run.waited,
            replica=self._name,
            together=run.together,
            queues=True,
        )

    async def _submitted(self, feed: Feed) -> tuple[Run, asyncio.Future[None]]:
        needed = split_state(feed.state)[0] if feed.state is not None else ()
        opened = {ref.id: (await self._opened(ref)).converter for ref in (*needed, feed.voice)}
        last = self._kept.last(feed) if feed.state is None else None
        if last is not None and last.stream.converter is not opened[feed.voice.id]:  # another voice begins here
            await asyncio.wait({asyncio.wrap_future(last.future)})
            last = self._kept.last(feed)
        self._kept.drop(feed.session)
        stream = stream_of(feed, last, opened, needed)
        run = Run(stream, feed.pieces, _slice(stream), feed.live, feed.session, after=last)
        self._kept.put(feed.session, feed.seq + len(feed.pieces), run)
        return run, asyncio.wrap_future(self._batcher.submit(run))

    async def warm(self, voice: VoiceRef) -> None:
        """Make a voice ready, and know what it costs. Raises as ``open``."""
        await self._costs.of(voice.id, await self._opened(voice))

    def check(self) -> None:
        """Raise RuntimeError if nothing can be computed any more."""
        self._batcher.check()

    async def forget(self, session: str) -> None:
        """See ``engine.LiveEngine``."""
        self._kept.drop(session)

    def close(self) -> None:
        """Stop the computing thread; what it had not done is cancelled."""
        self._costs.close()
        self._kept.clear()
        self._batcher.close()
        if self._closing is not None:
            self._closing()
        self._files.shutdown(wait=False, cancel_futures=True)

    async def _opened(self, ref: VoiceRef) -> LiveVoice:
        self._refs[ref.id] = ref
        self._refs.move_to_end(ref.id)
        while len(self._refs) > _MOST_REFS:
            self._refs.popitem(last=False)
        voice = self._voices.ready(ref)
        if voice is None and not len(self._kept):  # nobody sings here yet; elsewhere they may
            voice = await quietly(partial(self._voices.open, ref))
        elif voice is None:
            voice = await asyncio.get_running_loop().run_in_executor(self._files, self._voices.open, ref)
        return voice


def _slice(stream: LiveStream) -> int:
    """Samples of a turn: about a hop, so that a long piece holds up others no longer than a short one."""
    hop = -(-stream.converter.hop * stream.rate // TAKE_RATE)
    return -(-hop // stream.multiple) * stream.multiple
