"""For Ray Serve's proxy: whoever does not read what a WebSocket sends is let go of.

A gateway behind the proxy cannot see it: what it sends is taken from it at once and piles up, in both processes. Only
the proxy waits for the client, and by itself it does so for ever; its pings wait in the same line. Serve calls
``middlewares`` in each proxy where ``RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH`` names it.
"""

from __future__ import annotations

import asyncio

from starlette.middleware import Middleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

PATIENCE = 5.0
"""Seconds that a message may wait for the client to read the ones before; as ``LiveLimits.unread``."""


class LetGoOfTheDeaf:
    """An ASGI application around another one. A WebSocket whose ``send`` takes longer raises ConnectionError."""

    def __init__(self, app: ASGIApp, patience: float = PATIENCE) -> None:
        self._app, self._patience = app, patience

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ASGI."""

        async def timed(message: Message) -> None:
            try:
                async with asyncio.timeout(self._patience):
                    await send(message)
            except TimeoutError as error:
                raise ConnectionError("the client does not read what is sent to it") from error

        await self._app(scope, receive, timed if scope["type"] == "websocket" else send)


def middlewares() -> list[Middleware]:
    """What Serve puts around its proxy."""
    return [Middleware(LetGoOfTheDeaf)]
