"""A gateway's connection to the side door of one live replica."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from typing import Any

from serve_apps.jobs.remote import Refused
from serve_apps.live.door import LEAVING, Address, quick
from serve_apps.live.frames import BUFFER_BYTES, FrameReader, lost, write_frame

_OPEN_SECONDS = 2.0
_WHO = "the process that computes this stream"


class Path:
    """Calls to one replica. When it dies, all that wait for it are told at once."""

    def __init__(self, address: Address, reader: FrameReader, writer: asyncio.StreamWriter) -> None:
        self.replica = address.replica
        self.leaving = False
        """Whether the replica is about to stop."""
        self.voices: set[str] = set()
        """Ids of those that were opened over this path."""
        self.opening: set[str] = set()
        self._reader, self._writer = reader, writer
        self._numbers = itertools.count(LEAVING + 2)
        self._calls: dict[int, asyncio.Future[Any]] = {}
        self._reading = asyncio.create_task(self._read())

    @classmethod
    async def open(cls, address: Address) -> Path:
        """Connect. Raises OSError, TimeoutError."""
        async with asyncio.timeout(_OPEN_SECONDS):
            reader, writer = await asyncio.open_connection(address.host, address.port, limit=BUFFER_BYTES)
            quick(writer)
            frames = FrameReader(reader)
            writer.write(address.token)
            try:
                await frames.read()
            except EOFError as error:
                writer.close()
                raise ConnectionRefusedError("the replica does not know its token") from error
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

    def close(self) -> None:
        """Hang up."""
        self._reading.cancel()

    async def _read(self) -> None:
        try:
            while True:
                number, value = await self._reader.read()
                if number == LEAVING:
                    self.leaving = True
                elif (call := self._calls.get(number)) is not None and not call.done():
                    call.set_result(value)
        except EOFError:
            return
        finally:
            with contextlib.suppress(RuntimeError):  # the loop has ended
                self._writer.close()
            for call in list(self._calls.values()):
                if not call.done():
                    call.set_exception(lost(_WHO))
