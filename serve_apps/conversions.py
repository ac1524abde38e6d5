"""Orders carried out in this process: decode, convert, encode, tell what happens. Serve's replicas use it too."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from threading import Event as Flag
from threading import Semaphore
from typing import Any, Protocol

from rocktop_ray.audio.decode import probe
from rocktop_ray.audio.info import AudioLimits
from rocktop_ray.convert import Converter, Progress
from rocktop_ray.errors import CancelledError, RocktopError
from rocktop_ray.takes import FileConversion, convert_file, convert_stream
from serve_apps.observe.logs import request
from serve_apps.observe.meter import Meter, NoMeter
from serve_apps.orders import Advanced, AudioBytes, Event, Finished, Order, Report, Started, VoiceRef
from serve_apps.spool import Spool

_PIECES = 256
"""Encoded pieces that may wait for whoever listens: a slow listener holds the work up, not the memory."""
_LOOK_SECONDS = 0.2

_log = logging.getLogger(__name__)


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

    def __init__(self, converters: Converters, spool: Spool, concurrency: int = 1, meter: Meter | None = None) -> None:
        self._converters, self._spool = converters, spool
        self._threads = ThreadPoolExecutor(concurrency, thread_name_prefix="conversion")
        self._meter = meter or NoMeter()

    async def run(self, order: Order) -> AsyncGenerator[Event, None]:
        """See ``orders.Conversions``."""
        loop = asyncio.get_running_loop()
        events: asyncio.Queue[Event | None] = asyncio.Queue()
        room = Semaphore(_PIECES)
        cancel = Flag()

        def tell(event: Event | None) -> None:
            with suppress(RuntimeError):  # the loop is closed: nobody listens any more
                loop.call_soon_threadsafe(events.put_nowait, event)

        def emit(event: Event) -> None:
            while isinstance(event, AudioBytes) and not room.acquire(timeout=_LOOK_SECONDS):
                if cancel.is_set():
                    raise CancelledError("the conversion was cancelled")
            tell(event)

        def work(arrived: float) -> None:
            try:
                with request(order.request_id):
                    self._metered(order, emit, cancel, arrived)
            finally:
                tell(None)

        working = loop.run_in_executor(self._threads, work, time.perf_counter())
        try:
            while (event := await events.get()) is not None:
                if isinstance(event, AudioBytes):
                    room.release()
                yield event
            await working
        finally:
            cancel.set()
            working.cancel()  # takes it out of the line, if it has not begun
            working.add_done_callback(_heard)

    def close(self) -> None:
        """Begin no more; what waits is dropped."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    def carry_out(self, order: Order, emit: Callable[[Event], None], cancel: Flag) -> Report:
        """One order from start to end, in the calling thread. Raises RocktopError."""
        with self._spool.reading(order.source) as source, self._converters.lease(order.voice, order.pitch) as leased:
            emit(Started(probe(source).seconds))
            done, size = self._convert(leased.converter, source, order, emit, cancel)
        extractor = leased.converter.extractor
        facts = {**done.as_dict(), "voice": leased.voice, "pitch": extractor.name if extractor else None}
        report = Report(done.seconds, size, order.output.format.media_type, facts, done.f0_source, done.f0)
        emit(Finished(report))
        return report

    def _metered(self, order: Order, emit: Callable[[Event], None], cancel: Flag, arrived: float) -> None:
        """``carry_out``, told to the meter. ``arrived``: when the order came, by ``time.perf_counter``."""

        def spent() -> float:
            return time.perf_counter() - arrived

        self._meter.order_began(spent())
        try:
            if cancel.is_set():
                raise CancelledError("the conversion was cancelled")
            report = self.carry_out(order, emit, cancel)
        except CancelledError:
            self._meter.order_ended("cancelled", spent())
            raise
        except RocktopError as error:
            self._meter.order_ended("failed", spent(), error=error)
            raise
        except Exception:
            self._meter.order_ended("failed", spent(), error=RocktopError("unexpected"))
            _log.exception("conversion failed")
            raise
        work = sum(report.facts["stages"].values())
        self._meter.order_ended("done", spent(), audio_seconds=report.seconds, work_seconds=work)

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


def _heard(working: asyncio.Future[None]) -> None:
    """Take note of an error that came after everybody had left, so that asyncio does not complain of it."""
    if not working.cancelled():
        working.exception()
