"""Orders carried out in this process: decode, convert, encode, tell what happens. Serve's replicas use it too."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from threading import Event as Flag
from typing import Any, Protocol

from rocktop_ray.audio.decode import probe
from rocktop_ray.audio.info import AudioLimits
from rocktop_ray.convert import Converter, Progress
from rocktop_ray.takes import FileConversion, convert_file, convert_stream
from serve_apps.orders import Advanced, AudioBytes, Event, Finished, Order, Report, Started, VoiceRef
from serve_apps.spool import Spool


@dataclass(frozen=True)
class Leased:
    """A converter for one order, and facts for its report."""

    converter: Converter
    voice: dict[str, Any]
    """``version``, ``family``, ``sample_rate``, ``uses_f0``, ``loaded`` (seconds spent on loading it, 0 if it was)."""


class Converters(Protocol):
    """Where converters come from: in this process, or with stages on other replicas."""

    def lease(self, voice: VoiceRef, pitch: str | None) -> AbstractContextManager[Leased]:
        """A converter that stays usable while the block runs. Blocks while a voice is read. Raises RocktopError."""
        ...


class LocalConversions:
    """Carries out orders in threads of this process, ``concurrency`` at once; others wait in order."""

    def __init__(self, converters: Converters, spool: Spool, concurrency: int = 1) -> None:
        self._converters, self._spool = converters, spool
        self._threads = ThreadPoolExecutor(concurrency, thread_name_prefix="conversion")

    async def run(self, order: Order) -> AsyncGenerator[Event, None]:
        """See ``orders.Conversions``."""
        loop = asyncio.get_running_loop()
        events: asyncio.Queue[Event | None] = asyncio.Queue()
        cancel = Flag()

        def emit(event: Event | None) -> None:
            loop.call_soon_threadsafe(events.put_nowait, event)

        def work() -> None:
            try:
                self.carry_out(order, emit, cancel)
            finally:
                emit(None)

        working = loop.run_in_executor(self._threads, work)
        try:
            while (event := await events.get()) is not None:
                yield event
            await working
        finally:
            cancel.set()

    def carry_out(self, order: Order, emit: Callable[[Event], None], cancel: Flag) -> None:
        """One order from start to end, in the calling thread. Raises RocktopError."""
        with self._spool.reading(order.source) as source, self._converters.lease(order.voice, order.pitch) as leased:
            emit(Started(probe(source).seconds))
            done, size = self._convert(leased.converter, source, order, emit, cancel)
        extractor = leased.converter.extractor
        facts = {**done.as_dict(), "voice": leased.voice, "pitch": extractor.name if extractor else None}
        emit(Finished(Report(done.seconds, size, order.output.format.media_type, facts, done.f0_source, done.f0)))

    def _convert(
        self, converter: Converter, source: Path, order: Order, emit: Callable[[Event], None], cancel: Flag
    ) -> tuple[FileConversion, int]:
        limits = replace(AudioLimits(), max_seconds=order.max_seconds)

        def advance(progress: Progress) -> None:
            emit(Advanced(progress.seconds_done, progress.stage))

        if order.target is None:
            size = 0

            def send(data: bytes) -> None:
                nonlocal size
                size += len(data)
                emit(AudioBytes(data))

            done = convert_stream(
                converter, source, send, order.settings, order.output, limits=limits, on_progress=advance, cancel=cancel
            )
            return done, size
        with self._spool.writing(order.target, content_type=order.output.format.media_type) as target:
            done = convert_file(
                converter,
                source,
                target,
                order.settings,
                order.output,
                normalise=order.normalise,
                limits=limits,
                on_progress=advance,
                cancel=cancel,
            )
            return done, target.stat().st_size
