"""A whole live stream: from a source through a client to a sink, until the source ends or is stopped."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Protocol

from rocktop_ray.errors import RocktopError
from rocktop_ray.live.alignment import Alignment
from rocktop_ray.live.messages import Audio, Flags, Started
from rocktop_ray.live.sinks import Sink
from rocktop_ray.live.sources import Source
from rocktop_ray.protocols import Array


class Client(Protocol):
    """``LiveClient``, or ``LocalClient``."""

    def delay_at(self, seq: int) -> int:
        """Samples by which block ``seq`` of the output is late."""
        ...

    async def open(self) -> Started:
        """Begin."""
        ...

    async def send(self, samples: Array) -> None:
        """The next block."""
        ...

    async def receive(self) -> Audio | None:
        """The next block of output; None after the last."""
        ...

    async def end(self) -> None:
        """No more blocks come."""
        ...

    async def close(self) -> None:
        """Leave at once."""
        ...


@dataclass
class Course:
    """How a stream goes, seen from here."""

    rate: int = 0
    sent: int = 0
    """Samples."""
    written: int = 0
    """Samples, the delay cut off: as many as were sent, when all is done."""
    blocks: int = 0
    late: int = 0
    """Blocks that were not converted, or in part, as the time was over."""
    lost: int = 0
    way: float = 0.0
    """Seconds from sending the newest answered block to its answer."""


async def transfer(
    source: Source, client: Client, sink: Sink, course: Course, on_open: Callable[[Started], None] | None = None
) -> None:
    """Run the stream to its end; then everything is in the sink, but not finished. ``course`` is kept up to date.

    Raises what the source, the client or the sink raise; the client is closed in any case.
    """
    times: deque[float] = deque()

    async def feed() -> None:
        async for block in source.blocks():
            times.append(time.monotonic())
            course.sent += len(block)
            await client.send(block)
        await client.end()

    started = await client.open()
    course.rate = started.rate
    if on_open is not None:
        on_open(started)
    alignment = Alignment()
    feeding = asyncio.create_task(feed())
    drinking = asyncio.create_task(_drink(client, sink, course, alignment, times))
    try:
        await asyncio.wait([feeding, drinking], return_when=asyncio.FIRST_EXCEPTION)
        for task in (feeding, drinking):
            if task.done():
                task.result()
    finally:
        for task in (feeding, drinking):
            task.cancel()
            with suppress(asyncio.CancelledError, RocktopError):
                await task
        await client.close()


async def _drink(client: Client, sink: Sink, course: Course, alignment: Alignment, times: deque[float]) -> None:
    while (audio := await client.receive()) is not None:
        if Flags.LAST not in audio.flags:
            course.way = time.monotonic() - times.popleft()
            course.blocks += 1
            course.late += Flags.LATE in audio.flags
            course.lost += Flags.LOST in audio.flags
        out = alignment.push(audio, client.delay_at(audio.seq))
        course.written += len(out)
        if len(out):
            await sink.write(out)
