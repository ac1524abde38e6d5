"""The connection to one client: what comes in, what goes out in order, and a client that does not read."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from typing import Protocol

from rocktop_ray.errors import RocktopError
from rocktop_ray.live.protocol import close_reason


class GoneError(Exception):
    """The client is not there any more."""


class SilentError(RocktopError):
    """The client neither reads nor says anything."""

    code, stage, http_status, exit_code, retryable = "client_silent", "live", 408, 75, True


class TooMuchError(RocktopError):
    """The client sends more than it may."""

    code, stage, http_status, exit_code = "too_much", "live", 413, 75


class Transport(Protocol):
    """A connection that carries messages, e.g. a WebSocket."""

    async def receive(self) -> str | bytes:
        """The next message. Raises GoneError."""
        ...

    async def send(self, message: str | bytes) -> None:
        """Returns when the message has room on its way. Raises GoneError."""
        ...

    def backlog(self) -> int:
        """Bytes of messages that came, and were not received yet, as far as that is known."""
        ...

    async def close(self, code: int, reason: str) -> None:
        """Nothing happens if the client is gone already."""
        ...


class Wire:
    """Sends in the background, in order.

    Args:
        transport: what carries it.
        patience: seconds that a message may wait for the client to read the ones before.
        most_bytes: that may wait.
    """

    def __init__(self, transport: Transport, patience: float, most_bytes: int) -> None:
        self._transport, self._patience, self._most = transport, patience, most_bytes
        self._waiting: deque[str | bytes] = deque()
        self._queued = 0
        self._some, self._none = asyncio.Event(), asyncio.Event()
        self._none.set()

    @property
    def queued(self) -> int:
        """Bytes that wait to be sent."""
        return self._queued

    def post(self, message: str | bytes) -> None:
        """Send it when those before are sent. Raises SilentError if too many wait."""
        self._waiting.append(message)
        self._queued += len(message)
        self._some.set()
        self._none.clear()
        if self._queued > self._most:
            raise self._silent()

    async def receive(self) -> str | bytes:
        """The next message of the client. Raises GoneError."""
        return await self._transport.receive()

    def backlog(self) -> int:
        """Bytes that the client has sent and nobody has received, as far as that is known."""
        return self._transport.backlog()

    async def run(self) -> None:
        """Send for ever. Raises GoneError, SilentError."""
        while True:
            await self._some.wait()
            while self._waiting:
                message = self._waiting.popleft()
                self._queued -= len(message)
                try:
                    async with asyncio.timeout(self._patience):  # wait_for of Python 3.11 can miss a cancellation
                        await self._transport.send(message)
                except TimeoutError as error:
                    raise self._silent() from error
            self._some.clear()
            self._none.set()

    async def close(self, code: int, reason: str, seconds: float = 2.0) -> None:
        """Send what waits, if the client reads it in that time, and close. ``run`` must have ended."""
        with contextlib.suppress(GoneError, SilentError, TimeoutError):
            async with asyncio.timeout(seconds):
                while self._waiting:
                    await self._transport.send(self._waiting.popleft())
        with contextlib.suppress(GoneError, TimeoutError):
            async with asyncio.timeout(seconds):
                await self._transport.close(code, close_reason(reason))

    async def sent(self) -> None:
        """Returns when nothing waits."""
        await self._none.wait()

    def _silent(self) -> SilentError:
        return SilentError(f"this client has not read what was sent to it for {self._patience:g} s or more")
