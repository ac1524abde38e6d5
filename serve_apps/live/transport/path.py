"""A gateway's connection to the side door of one live replica."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import time
from typing import Any

from serve_apps.jobs.remote import Refused
from serve_apps.live.engine import HopCost
from serve_apps.live.transport.door import LEAVING, PING, Address, quick
from serve_apps.live.transport.frames import BUFFER_BYTES, FrameReader, lost, write_frame
from serve_apps.live.transport.lifeline import until_death
from serve_apps.live.transport.pulse import Pulse

_OPEN_SECONDS = 2.0
_WHO = "the process that computes this stream"


class Path:
    """Calls to one replica. When it dies, all that wait for it are told at once."""

    def __init__(self, address: Address, reader: FrameReader, writer: asyncio.StreamWriter) -> None:
        self.replica = address.replica
        self.leaving = False
        """Whether the replica is about to stop."""
        self.voices: dict[str, HopCost] = {}
        """Those that were opened over this path, by id, with what they cost there."""
        self.opening: set[str] = set()
        self._reader, self._writer = reader, writer
        self._numbers = itertools.count(PING + 1)
        self._calls: dict[int, asyncio.Future[Any]] = {}
        self._pulse, self._pong = Pulse(), asyncio.get_running_loop().create_future()
        self._pong.set_result(None)
        self._reading = asyncio.create_task(self._read())
        self._living = None if address.life is None else asyncio.create_task(self._live(address.host, address.life))

    @classmethod
    async def open(cls, address: Address) -> Path:
        """Connect. Raises OSError, TimeoutError."""
        async with asyncio.timeout(_OPEN_SECONDS):
            reader, writer = await asyncio.open_connection(address.host, address.port, limit=BUFFER_BYTES)
            try:
                quick(writer)
                frames = FrameReader(reader)
                writer.write(address.token)
                await frames.read()
            except BaseException as error:
                writer.close()
                if isinstance(error, EOFError):
                    raise ConnectionRefusedError("the replica does not know its token") from error
                raise
        return cls(address, frames, writer)

    @property
    def alive(self) -> bool:
        """Whether calls can be sent."""
        return not self._reading.done()

    async def call(self, value: Any) -> Any:
        """What the replica answers. Raises StageLostError if it died, and what it refuses with."""
        if not self.alive:
            raise lost(_WHO)
        number, answer = next(self._numbers), asyncio.get_running_loop().create_future()
        self._calls[number] = answer
        try:
            write_frame(self._writer, number, value)
            result = await answer
        finally:
            self._calls.pop(number, None)
        if isinstance(result, Refused):
            raise result.error
        return result

    @property
    def silent(self) -> bool:
        """Whether it was given up for dead, and has not answered since."""
        return self._pulse.alarmed

    def ping(self) -> asyncio.Future[None]:
        """Done at the next sign of life, or when the connection breaks. One ping is on its way at a time."""
        if self._pong.done() and self.alive:
            self._pong = asyncio.get_running_loop().create_future()
            self._pulse.asked(time.monotonic())
            write_frame(self._writer, PING, None)
        return self._pong

    def left(self) -> float:
        """Seconds that the sign of life may still take."""
        return self._pulse.left(time.monotonic())

    def alarm(self) -> bool:
        """Whether it is to be given up for dead, as a sign of life is overdue."""
        return self._pulse.alarm(time.monotonic())

    def close(self) -> None:
        """Hang up."""
        self._reading.cancel()

    async def _live(self, host: str, port: int) -> None:
        if await until_death(host, port):
            self._reading.cancel()  # the connection itself breaks later

    async def _read(self) -> None:
        try:
            while True:
                number, value = await self._reader.read()
                if number == LEAVING:
                    self.leaving = True
                elif number == PING:
                    self._pulse.answered(time.monotonic())
                    self._ponged()
                elif (call := self._calls.get(number)) is not None and not call.done():
                    call.set_result(value)
        except EOFError:
            return
        finally:
            with contextlib.suppress(RuntimeError):  # the loop has ended
                self._writer.close()
            self._ponged()
            if self._living is not None:
                self._living.cancel()
            for call in list(self._calls.values()):
                if not call.done():
                    call.set_exception(lost(_WHO))

    def _ponged(self) -> None:
        if not self._pong.done():
            self._pong.set_result(None)
