"""What is around every WebSocket, as ``frame`` is around every request: its id, a line in the log, a close in any case.

Refusals are told as a message with a problem and a close code: a browser shows its page nothing of a refused handshake.
"""

from __future__ import annotations

import asyncio
import logging
import time
from typing import Any

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from rocktop_ray.errors import RocktopError
from rocktop_ray.live.messages import CloseCode, Problem
from rocktop_ray.live.protocol import close_reason, pack
from serve_apps.gateway.problems import UNEXPECTED, Veil, problem, respond, retry_after
from serve_apps.gateway.refusals import RouteNotFoundError
from serve_apps.observe.http import route_of

_access = logging.getLogger("serve_apps.access")
_log = logging.getLogger(__name__)


def told(error: BaseException, scope: Scope, veil: Veil) -> Problem:
    """An error as the client may see it. The log says more of those that are the service's own."""
    state = scope.get("state", {})
    if not isinstance(error, RocktopError):
        _log.error("unexpected error", exc_info=error)
        error = RocktopError(UNEXPECTED)
    elif error.http_status >= 500:
        _log.warning("stream failed", extra={"code": error.code, "stage": error.stage, "why": error.message})
    state["error_code"] = error.code
    data = problem(error, state.get("request_id"), veil.hide(error.message))
    return Problem(
        code=data["code"],
        title=data["title"],
        detail=data["detail"],
        status=data["status"],
        stage=data["stage"],
        request_id=data["request_id"],
        retry_after=retry_after(error),
    )


def refusal(error: RocktopError, scope: Scope, veil: Veil) -> ASGIApp:
    """An ASGI application that lets the client in only to say why it is sent away."""

    async def refuse(scope: Scope, receive: Receive, send: Send) -> None:
        explained = told(error, scope, veil)
        code = CloseCode.ORIGIN if error.http_status == 421 else CloseCode.of_status(error.http_status)
        if (await receive())["type"] == "websocket.connect":
            await send({"type": "websocket.accept", "headers": []})
            await send({"type": "websocket.send", "text": pack(explained)})
            await send({"type": "websocket.close", "code": int(code), "reason": close_reason(explained.detail)})

    return refuse


def nowhere(otherwise: ASGIApp, veil: Veil) -> ASGIApp:
    """For WebSockets at paths where there is nothing: the handshake is answered with 404 (ASGI's denial response), not
    with 403 as by itself. ``otherwise``: for all else, and for servers that cannot do that.
    """

    async def answer(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket" and "websocket.http.response" in scope.get("extensions", {}):
            error = RouteNotFoundError(f"there is no stream at {scope['path'][:200]}; see /docs")
            await respond(error, scope, veil)(scope, receive, send)
        else:
            await otherwise(scope, receive, send)

    return answer


class SocketAccount:
    """Sees what comes in and goes out on one WebSocket."""

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._scope, self._receive, self._send = scope, receive, send
        self._began = time.perf_counter()
        self._in = self._out = 0
        self._accepted = False
        self._code: int | None = None
        """With which the connection was closed, by whomever; of a refused handshake its HTTP status."""

    async def run(self, app: ASGIApp, veil: Veil) -> None:
        """Serve it. Raises nothing but CancelledError: whatever is met, the client is told, and the log."""
        self._scope["state"]["backlog"] = self.backlog
        try:
            await app(self._scope, self.receive, self.send)
        except asyncio.CancelledError:
            self._code = self._code or 1006
            raise
        except Exception as error:  # noqa: BLE001 - the one place for what nobody expected
            await self._apologise(told(error, self._scope, veil))
        finally:
            self._tell()

    async def receive(self) -> Message:
        """See ASGI."""
        message = await self._receive()
        self._in += _size(message)
        if message["type"] == "websocket.disconnect":
            self._code = self._code or message.get("code") or 1006
        return message

    async def send(self, message: Message) -> None:
        """See ASGI."""
        if message["type"] == "websocket.accept":
            self._accepted = True
            message.setdefault("headers", [])
            MutableHeaders(raw=message["headers"])["X-Request-Id"] = self._scope["state"]["request_id"]
        elif message["type"] == "websocket.close":
            self._code = self._code or message.get("code", 1000)
        elif message["type"] == "websocket.http.response.start":
            self._code = message["status"]
        self._out += _size(message)
        await self._send(message)

    def backlog(self) -> int:
        """Bytes that came and were not asked for yet: a replica of Serve takes in whatever a client sends, at once."""
        waiting = getattr(getattr(self._receive, "queue", None), "_queue", ())
        return sum(_size(message) for message in list(waiting) if isinstance(message, dict))

    async def _apologise(self, explained: Problem) -> None:
        if self._code is not None:
            return
        try:
            if self._accepted:
                await self.send({"type": "websocket.send", "text": pack(explained)})
            await self.send({"type": "websocket.close", "code": int(CloseCode.FAULT), "reason": "fault"})
        except (OSError, RuntimeError):
            self._code = self._code or 1006  # the client is gone

    def _tell(self) -> None:
        """One line in the log. No secrets, no sound."""
        state, client = self._scope.get("state", {}), self._scope.get("client")
        facts: dict[str, Any] = {
            "method": "WEBSOCKET",
            "route": route_of(self._scope),
            "status": self._code or 1006,
            "seconds": round(time.perf_counter() - self._began, 4),
            "bytes_in": self._in,
            "bytes_out": self._out,
            "owner": state.get("owner"),
            "client": client[0] if client else None,
        }
        if "error_code" in state:
            facts["code"] = state["error_code"]
        _access.info("socket", extra={**facts, **state.get("facts", {})})


def _size(message: Message) -> int:
    return len(message.get("bytes") or message.get("body") or b"") + len(message.get("text") or "")
