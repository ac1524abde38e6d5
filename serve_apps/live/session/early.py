"""A client while its voice is opened: that it leaves is noticed, and what it sends already is kept, within bounds."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Coroutine
from typing import Any, TypeVar

from serve_apps.live.session.wire import TooMuchError, Transport

_LOOK = 0.25
"""Seconds between two looks at what piles up behind the transport."""
_T = TypeVar("_T")


class Early:
    """A ``wire.Transport`` over another one. ``most``: bytes that are taken in early."""

    def __init__(self, transport: Transport, most: float) -> None:
        self._transport, self._most = transport, most
        self._kept: deque[str | bytes] = deque()
        self._bytes = 0
        self.send, self.close = transport.send, transport.close

    async def heed(self, work: Coroutine[Any, Any, _T]) -> _T:
        """Do ``work``, listening meanwhile; it is cancelled when the client leaves, or sends too much. Raises
        GoneError, TooMuchError, and what ``work`` raises.
        """
        working, listening = asyncio.create_task(work), asyncio.create_task(self._listen())
        try:
            await asyncio.wait((working, listening), return_when=asyncio.FIRST_COMPLETED)
            return working.result() if working.done() else listening.result()
        finally:
            for task in (working, listening):
                task.cancel()
            await asyncio.gather(working, listening, return_exceptions=True)

    async def receive(self) -> str | bytes:
        """See ``wire.Transport``."""
        if self._kept:
            message = self._kept.popleft()
            self._bytes -= len(message)
            return message
        return await self._transport.receive()

    def backlog(self) -> int:
        """See ``wire.Transport``."""
        return self._bytes + self._transport.backlog()

    async def _listen(self) -> Any:
        """Raises GoneError, TooMuchError."""
        while self._bytes <= self._most:
            message = await self._transport.receive()
            self._kept.append(message)
            self._bytes += len(message)
        while self._transport.backlog() <= self._most:  # from here on TCP may hold the client back
            await asyncio.sleep(_LOOK)
        raise TooMuchError("too much was sent before the stream began: wait for 'started'")
