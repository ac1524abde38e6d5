"""The client of ``/v1/stream``: blocks in, blocks out in order, over as many connections as it takes.

``LiveClient`` is for asyncio; ``live.blocking`` is the same as a plain generator. Blocks stay here until the server
needs them no more; when a connection breaks another one is made, and the stream goes on where it was, without a gap and
without a sample twice.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import suppress
from types import TracebackType
from typing import Any

from rocktop_ray.errors import ProtocolError, RocktopError, SessionGoneError, SettingsError, StreamLostError
from rocktop_ray.live.connection import Connection, Dropped, stream_address
from rocktop_ray.live.endings import Retries
from rocktop_ray.live.events import Event, Lost, Resumed
from rocktop_ray.live.messages import (
    Applied,
    Audio,
    Bypass,
    Change,
    ChangeVoice,
    End,
    Ended,
    Notice,
    Ping,
    Pong,
    Resume,
    ServerMessage,
    Start,
    Started,
    Stats,
    TextMessage,
)
from rocktop_ray.live.outbox import Outbox
from rocktop_ray.live.protocol import pack
from rocktop_ray.protocols import Array

_KEPT_SECONDS = 120
_IDLE = 5.0
"""Seconds without anything to send after which the server is told that we are still here."""
_BEHIND = 2.0
"""Seconds of audio that may wait besides those of a lost connection, live."""
_OUTPUTS = 64
"""Blocks that wait to be received before the server is not listened to any more."""


class LiveClient:
    """One stream. Call ``send`` and ``receive`` from two tasks, or use ``convert``.

    Args:
        url: of the server: ``ws``, ``wss``, ``http`` or ``https``; the path may be left out.
        start: voice, rate, format, pace and settings.
        api_key: sent in a header; never put one into the address.
        patience: seconds for which a lost stream is tried to go on.
        on_event: called with whatever happens besides audio, in the event loop; must not block.

    Raises SettingsError for an address that is none.
    """

    def __init__(
        self,
        url: str,
        start: Start,
        *,
        api_key: str | None = None,
        patience: float = 30.0,
        on_event: Callable[[Event], None] | None = None,
    ) -> None:
        self.url, self._start, self._api_key, self._patience = stream_address(url), start, api_key, patience
        self._on_event = on_event or (lambda event: None)
        self._outbox = Outbox(start.format, _KEPT_SECONDS * start.rate)
        self._outputs: deque[Audio] = deque()
        # Each is set when there is something new for the one task that waits for it.
        self._to_send, self._sent, self._arrived, self._taken = (asyncio.Event() for _ in range(4))
        self._runner: asyncio.Task[None] | None = None
        self._ending = False
        self._delays: list[tuple[int, int]] = []
        """From which block on the output is how late, as it was told; what came later counts."""
        self.started: Started | None = None
        """What the server said of the session, last."""
        self.ended: Ended | None = None
        """The server's account, when all is done."""

    def delay_at(self, seq: int) -> int:
        """Samples by which block ``seq`` of the output is late; another voice may have another delay."""
        return next((delay for first, delay in reversed(self._delays) if first <= seq), 0)

    async def open(self) -> Started:
        """Connect and begin. Raises the RocktopError that says why not: the address, the key, the voice, no room..."""
        connection, started = await self._connect(self._start)
        self._runner = asyncio.create_task(self._run(connection))
        for waited in (self._sent, self._arrived):
            self._runner.add_done_callback(lambda _, waited=waited: waited.set())  # type: ignore[misc]
        return started

    async def send(self, samples: Array) -> None:
        """The next block, float32 ``[1 sample .. 1 s]``. Waits while the server has enough, but in live pace.

        Raises what ended the stream, and StreamLostError where a live stream has fallen behind for good.
        """
        if samples.ndim != 1 or not 1 <= len(samples) <= self._start.rate:
            raise SettingsError(f"a block is mono, 1 to {self._start.rate} samples, not {list(samples.shape)}")
        self._check_open()
        self._outbox.put(samples)
        self._to_send.set()
        if self._start.pace == "live":
            behind = self._outbox.waiting / self._start.rate
            if behind > self._patience + _BEHIND:
                raise StreamLostError(f"the connection is too slow: {behind:.1f} s of audio wait to be sent")
            return
        while self._outbox.waiting:
            self._sent.clear()
            await self._sent.wait()
            self._check()

    async def receive(self) -> Audio | None:
        """The next block of output; None after the last. Raises what ended the stream, each time."""
        while not self._outputs:
            if self._runner is None or self._runner.done():
                self._check()
                return None
            self._arrived.clear()
            await self._arrived.wait()
        self._taken.set()
        return self._outputs.popleft()

    async def convert(self, blocks: Iterable[Array]) -> AsyncIterator[Audio]:
        """Send all blocks and the end; yields all that comes back. ``blocks`` may block: it runs in a thread."""

        async def feed() -> None:
            source = iter(blocks)
            while (block := await asyncio.to_thread(next, source, None)) is not None:
                await self.send(block)
            await self.end()

        feeding = asyncio.create_task(feed())
        feeding.add_done_callback(lambda task: self._stop() if not task.cancelled() and task.exception() else None)
        try:
            while (audio := await self.receive()) is not None:
                yield audio
            await feeding
        finally:
            feeding.cancel()
            with suppress(asyncio.CancelledError, RocktopError):
                await feeding

    async def change(self, settings: dict[str, Any]) -> None:
        """Other settings from the next block on; those left out stay. ``Applied`` says that they hold."""
        self._say(Change(settings))

    async def change_voice(self, voice: str) -> None:
        """Another voice, faded over to as soon as it is ready."""
        self._say(ChangeVoice(voice))

    async def bypass(self, on: bool) -> None:
        """The take itself, equally late, from the next block on, or the converted again."""
        self._say(Bypass(on))

    async def ping(self, at: Any) -> None:
        """Ask for a ``Pong`` with ``at``; it goes behind all that waits to be sent."""
        self._say(Ping(at))

    async def end(self) -> None:
        """No more blocks come. What is late still is received."""
        if not self._ending:
            self._say(End())
            self._ending = True

    async def close(self) -> None:
        """Leave at once."""
        self._stop()
        if self._runner is not None:
            with suppress(asyncio.CancelledError, RocktopError):
                await self._runner

    async def __aenter__(self) -> LiveClient:
        """Opens."""
        await self.open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Closes."""
        await self.close()

    def _say(self, message: TextMessage) -> None:
        self._check_open()
        self._outbox.say(message)
        self._to_send.set()

    def _stop(self) -> None:
        if self._runner is not None:
            self._runner.cancel()

    def _check(self) -> None:
        if self._runner is not None and self._runner.done() and not self._runner.cancelled():
            error = self._runner.exception()
            if error is not None:
                raise error

    def _check_open(self) -> None:
        self._check()
        if self._ending or self._runner is None or self._runner.done():
            raise SettingsError("the stream is not open: it was not begun, or it was ended")

    async def _connect(self, first: Start | Resume) -> tuple[Connection, Started]:
        start = self._start
        connection, started = await Connection.open(self.url, self._api_key, first, start.format, start.rate)
        try:
            self._outbox.rewind(started.next)
        except ProtocolError:
            await connection.leave()
            raise
        self.started = started
        self._late(self._outbox.received + 1, started.delay)
        self._on_event(started)
        return connection, started

    async def _run(self, connection: Connection) -> None:
        """Over one connection after the other, to the end."""
        retries: Retries | None = None
        while True:
            sender = asyncio.create_task(self._send_all(connection))
            try:
                while self.ended is None:
                    await self._take(await connection.hear())
                return
            except Dropped as dropped:
                ending = dropped.ending
            finally:
                sender.cancel()
                with suppress(asyncio.CancelledError):
                    await sender
                await connection.leave()
            if not ending.can_go_on:
                raise ending.error()
            if retries is None or retries.received < self._outbox.received:
                retries = Retries(self._patience, self._outbox.received)
                self._on_event(Lost(ending.error().message))
            else:
                await asyncio.sleep(retries.pause(ending.error()))
            connection = await self._resume(retries)

    async def _send_all(self, connection: Connection) -> None:
        assert self.started is not None
        window = round(self.started.window * self._start.rate)
        with suppress(Dropped):  # the receiving side hears how it ended
            while True:
                while entry := self._outbox.take(window):
                    await connection.send(entry.data)
                    self._sent.set()
                self._to_send.clear()
                try:
                    async with asyncio.timeout(_IDLE):
                        await self._to_send.wait()
                except TimeoutError:
                    await connection.send(pack(Ping()))

    async def _take(self, message: ServerMessage) -> None:
        if isinstance(message, Audio):
            if self._outbox.answer(message):
                self._to_send.set()
                self._outputs.append(message)
                self._arrived.set()
                while len(self._outputs) > _OUTPUTS:
                    self._taken.clear()
                    await self._taken.wait()
            return
        if isinstance(message, Stats):
            self._outbox.keep(message.kept)
        elif isinstance(message, Applied):
            self._late(message.seq, message.delay)
        elif isinstance(message, Ended):
            self.ended = message
        if isinstance(message, Applied | Stats | Notice | Pong | Ended):
            self._on_event(message)
        elif isinstance(message, Started):
            raise ProtocolError("the server began the session a second time")

    def _late(self, seq: int, delay: int) -> None:
        """From block ``seq`` on the output is ``delay`` samples late."""
        if not self._delays or self._delays[-1][1] != delay:
            self._delays.append((seq, delay))

    async def _resume(self, retries: Retries) -> Connection:
        """Another connection on which the stream goes on. Raises StreamLostError, SessionGoneError..."""
        assert self.started is not None
        first: Start | Resume = Resume(self.started.session, self.started.secret, self._outbox.received)
        while True:
            try:
                connection, started = await self._connect(first)
            except RocktopError as error:
                if isinstance(error, SessionGoneError) and isinstance(first, Resume) and self._outbox.untouched:
                    first = self._start  # another session misses nothing
                    continue
                await asyncio.sleep(retries.pause(error))
                continue
            self._on_event(Resumed(retries.seconds, max(0, self._outbox.next_seq - started.next)))
            return connection
