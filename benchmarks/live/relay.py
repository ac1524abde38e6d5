"""A TCP relay that cuts its connections now and then, as networks do: without a word to either side."""

from __future__ import annotations

import asyncio
from contextlib import suppress


class Relay:
    """Listens on a port of loopback and passes everything on to ``port``; ``cut`` breaks all connections."""

    def __init__(self, port: int) -> None:
        self._target = port
        self._open: set[asyncio.StreamWriter] = set()
        self._server: asyncio.Server | None = None
        self.port = 0
        self.cuts = 0
        """Times that a connection stood and was cut."""

    async def start(self) -> None:
        """Listen."""
        self._server = await asyncio.start_server(self._passed, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]

    def cut(self) -> None:
        """Break what stands."""
        self.cuts += bool(self._open)
        for writer in self._open:
            writer.transport.abort()

    def close(self) -> None:
        """Listen no more, and break what stands."""
        if self._server is not None:
            self._server.close()
        for writer in self._open:
            writer.transport.abort()

    async def _passed(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._target)
        except OSError:
            writer.transport.abort()
            return
        self._open |= {writer, far_writer}
        try:
            # asyncio would complain of the cancelled task of a connection that stands when the loop ends.
            with suppress(asyncio.CancelledError):
                await asyncio.gather(_copy(reader, far_writer), _copy(far_reader, writer))
        finally:
            self._open -= {writer, far_writer}


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while data := await reader.read(1 << 16):
            writer.write(data)
            await writer.drain()
    with suppress(OSError):
        writer.close()
