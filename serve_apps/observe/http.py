"""ASGI middleware: every HTTP request becomes metrics, whatever route it took and however it ended."""

from __future__ import annotations

import threading
import time

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serve_apps.observe.metrics import Metrics

_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_CLIENT_LEFT = 499


class HttpMeter:
    """Counts requests by declared route, so that no path a client makes up becomes a label."""

    def __init__(self, app: ASGIApp, metrics: Metrics | None = None) -> None:
        self.app, self._metrics = app, metrics
        self._guard, self._ongoing = threading.Lock(), 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Other kinds of scope pass unseen."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        # A replica knows its place in Ray only after the application was built.
        metrics = self._metrics = self._metrics or Metrics()
        began, received, sent, status = time.perf_counter(), 0, 0, 0

        async def receiving() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            return message

        async def sending(message: Message) -> None:
            nonlocal sent, status
            if message["type"] == "http.response.start":
                status = message["status"]
            sent += len(message.get("body", b""))
            await send(message)

        self._count(metrics, 1)
        try:
            await self.app(scope, receiving, sending)
        except Exception:
            status = status or 500
            raise
        finally:
            self._count(metrics, -1)
            method = scope["method"] if scope["method"] in _METHODS else "other"
            seconds = time.perf_counter() - began
            metrics.answered(method, route_of(scope), status or _CLIENT_LEFT, seconds, received, sent)

    def _count(self, metrics: Metrics, change: int) -> None:
        with self._guard:
            self._ongoing += change
            ongoing = self._ongoing
        metrics.ongoing(ongoing)


def route_of(scope: Scope) -> str:
    """The route as it was declared, ``static`` for files that were mounted, ``none`` where nothing fits."""
    route = scope.get("route")
    path = getattr(route, "path", None)
    if isinstance(path, str):
        return path
    return "static" if "endpoint" in scope else "none"
