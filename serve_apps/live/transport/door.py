"""The side door of a live replica: gateways that Serve told its address send their feeds straight to it."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import socket
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from rocktop_ray.errors import RocktopError
from serve_apps.jobs.remote import Refused
from serve_apps.live.transport.frames import BUFFER_BYTES, TOKEN_BYTES, FrameReader, write_frame
from serve_apps.live.transport.lifeline import hang_out

LEAVING, ADMITTED, PING = range(3)
"""Numbers of frames that are no calls: the replica is about to stop; the token was the right one; a sign of life."""
_GREETING_SECONDS = 5.0


@dataclass(frozen=True)
class Address:
    """Where a replica answers."""

    replica: str
    host: str
    port: int
    token: bytes = field(repr=False)
    life: int | None = None
    """Port of its lifeline, if there is one."""


class Door:
    """Answers calls side by side. ``answer`` gets what was sent; a RocktopError of it is sent back as ``Refused``."""

    def __init__(self, replica: str, answer: Callable[[Any], Awaitable[Any]]) -> None:
        self._replica, self._answer = replica, answer
        self._token = secrets.token_bytes(TOKEN_BYTES)
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self._running: set[asyncio.Task[None]] = set()

    async def open(self, host: str) -> Address:
        """Listen on a free port of ``host``. Raises OSError."""
        self._server = await asyncio.start_server(self._serve, host, 0, limit=BUFFER_BYTES)
        life = await asyncio.to_thread(hang_out, host)
        return Address(self._replica, host, self._server.sockets[0].getsockname()[1], self._token, life)

    async def leave(self, seconds: float) -> None:
        """Ask all to go elsewhere, and go on answering until they have, for so long at most."""
        if self._server is None:
            return
        self._server.close()
        for writer in self._writers:
            write_frame(writer, LEAVING, None)
        end = asyncio.get_running_loop().time() + seconds
        while self._writers and asyncio.get_running_loop().time() < end:
            await asyncio.sleep(0.05)
        for writer in list(self._writers):
            writer.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        frames = FrameReader(reader)
        try:
            async with asyncio.timeout(_GREETING_SECONDS):
                if not await frames.admit(self._token):
                    return
            quick(writer)
            self._writers.add(writer)
            write_frame(writer, ADMITTED, None)
            while True:
                number, value = await frames.read()
                if number == PING:
                    write_frame(writer, PING, None)
                    continue
                task = asyncio.create_task(self._reply(writer, number, value))
                self._running.add(task)
                task.add_done_callback(self._running.discard)
        except (EOFError, TimeoutError):
            return
        finally:
            self._writers.discard(writer)
            writer.close()

    async def _reply(self, writer: asyncio.StreamWriter, number: int, value: Any) -> None:
        try:
            answer = await self._answer(value)
        except RocktopError as error:
            answer = Refused(error)
        write_frame(writer, number, answer)
        with contextlib.suppress(OSError):
            await writer.drain()


def quick(writer: asyncio.StreamWriter) -> None:
    """Send small frames at once."""
    with contextlib.suppress(OSError):
        writer.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
