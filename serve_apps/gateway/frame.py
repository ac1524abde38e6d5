"""What is around every request: its id, safe headers, one line in the log, and an answer whatever happens."""

from __future__ import annotations

import asyncio
import logging
import re
import sys
import time
from typing import Any

from starlette._utils import get_route_path
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serve_apps.gateway.problems import Veil, unexpected
from serve_apps.gateway.sockets import SocketAccount
from serve_apps.ids import uuid7
from serve_apps.observe import logs
from serve_apps.observe.http import route_of

REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
"""Ids of clients that are kept."""
PAGE_POLICY = (
    "default-src 'self'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; media-src 'self' blob:; "
    "connect-src 'self' blob:; worker-src 'self' blob:; object-src 'none'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'"
)
"""Content-Security-Policy of the studio: its own scripts only."""

_POLICY = "default-src 'none'; media-src 'self'; style-src 'unsafe-inline'; frame-ancestors 'none'"
_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
}
_access = logging.getLogger("serve_apps.access")


class Frame:
    """The outermost ASGI middleware. Puts ``request_id`` into the state."""

    def __init__(self, app: ASGIApp, veil: Veil) -> None:
        self._app, self._veil = app, veil

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ASGI."""
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        given = headers.get("x-request-id", "")
        state = scope.setdefault("state", {})
        state["request_id"] = given if REQUEST_ID.fullmatch(given) else uuid7()
        state["names"] = {}
        if scope["type"] == "websocket":
            with logs.request(state["request_id"]):
                await SocketAccount(scope, receive, send).run(self._app, self._veil)
            return
        # Ray Serve's proxy adds the header of the id that it passed on, the client's own or one it made.
        account = _Account(scope, receive, send, adds_id=not (given and _behind_serve()))
        with logs.request(state["request_id"]):
            try:
                await self._app(scope, account.receive, account.send)
            except asyncio.CancelledError:
                account.outcome = 499
                raise
            except Exception as error:
                if account.status is not None:
                    account.outcome = 500
                    raise  # the connection breaks, so that nobody takes half an answer for a whole one
                await unexpected(error, scope, self._veil)(scope, account.receive, account.send)
            finally:
                account.tell(scope)


class _Account:
    """Sees what comes in and goes out."""

    def __init__(self, scope: Scope, receive: Receive, send: Send, adds_id: bool) -> None:
        self._receive, self._send = receive, send
        self._request_id, self._adds_id = scope["state"]["request_id"], adds_id
        self._path = get_route_path(scope)
        self._began = time.perf_counter()
        self._in = self._out = 0
        self._ended = False
        given = Headers(scope=scope)
        self._unread = given.get("content-length", "0") != "0" or "transfer-encoding" in given
        self.status: int | None = None
        self.outcome: int | None = None
        """What the log says instead of the status that was sent."""

    async def receive(self) -> Message:
        message = await self._receive()
        if message["type"] == "http.request":
            self._in += len(message.get("body", b""))
            self._unread = message.get("more_body", False)
        elif message["type"] == "http.disconnect" and not self._ended:
            self.outcome = 499
        return message

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            headers = MutableHeaders(scope=message)
            if self._adds_id:
                headers["X-Request-Id"] = self._request_id
            for name, value in _HEADERS.items():
                headers.setdefault(name, value)
            if self._unread and self.status >= 400:
                headers["Connection"] = "close"  # else the server would go on reading what nobody wants
            page = self._path == "/" or self._path.startswith(("/studio/", "/docs"))
            headers.setdefault("Content-Security-Policy", PAGE_POLICY if page else _POLICY)
            headers.setdefault("Cache-Control", "no-cache" if page else "no-store")
        elif message["type"] == "http.response.body":
            self._out += len(message.get("body", b""))
            self._ended = not message.get("more_body", False)
        await self._send(message)

    def tell(self, scope: Scope) -> None:
        """One line in the log. No queries, no keys, no addresses of takes."""
        seconds = time.perf_counter() - self._began
        status = self.outcome or self.status or 500
        state, client = scope.get("state", {}), scope.get("client")
        facts: dict[str, Any] = {
            "method": scope["method"][:16],
            "route": route_of(scope),
            "status": status,
            "seconds": round(seconds, 4),
            "bytes_in": self._in,
            "bytes_out": self._out,
            "owner": state.get("owner"),
            "client": client[0] if client else None,
        }
        if "error_code" in state:
            facts["code"] = state["error_code"]
        _access.info("request", extra=facts)


def _behind_serve() -> bool:
    """Whether this process is a replica of Ray Serve."""
    serve = sys.modules.get("ray.serve.context")
    return serve is not None and serve._get_internal_replica_context() is not None
