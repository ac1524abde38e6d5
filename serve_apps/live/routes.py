"""``/v1/stream``: live conversion over a WebSocket. The protocol is in ``rocktop_ray/live/protocol.py``."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable

from fastapi import APIRouter
from starlette.concurrency import run_in_threadpool
from starlette.websockets import WebSocket, WebSocketDisconnect, WebSocketDisconnected

from rocktop_ray.errors import ProtocolError, RocktopError
from rocktop_ray.live.messages import MOST_BINARY, PATH, Problem, Resume, Start
from rocktop_ray.live.protocol import SAMPLE_BYTES, close_reason, pack, parse_client
from serve_apps.config import LiveConfig
from serve_apps.gateway.problems import Veil
from serve_apps.gateway.refusals import RateLimitedError
from serve_apps.gateway.sockets import told
from serve_apps.live.engine import Desk, LiveEngine
from serve_apps.live.session.draining import replica_draining
from serve_apps.live.session.early import Early
from serve_apps.live.session.endings import Ending, close_code
from serve_apps.live.session.limits import LiveLimits
from serve_apps.live.session.opening import Opening
from serve_apps.live.session.runner import Behind
from serve_apps.live.session.wire import GoneError, SilentError, Wire
from serve_apps.observe.metrics import Metrics
from serve_apps.orders import VoiceRef
from serve_apps.voices import VoiceShelf

_NEW_SHARE = 4
"""Of what a gateway does at once, the part that connections may take which have not said yet what they want: they need
no key so far, and all else must go on beside them.
"""


def router(
    engine: LiveEngine,
    desk: Desk,
    config: LiveConfig,
    voices: VoiceShelf,
    veil: Veil,
    concurrency: int,
    limits: LiveLimits | None = None,
) -> APIRouter:
    """The route. concurrency: what the gateway does at once. limits: for tests; else those of the configuration."""
    routes = APIRouter()
    stage = _Stage(engine, desk, voices, veil, limits or LiveLimits.of(config), max(1, concurrency // _NEW_SHARE))

    @routes.websocket(PATH)
    async def stream(socket: WebSocket) -> None:
        await stage.enter(socket)

    return routes


class SocketTransport:
    """A WebSocket as a ``wire.Transport``."""

    def __init__(self, socket: WebSocket) -> None:
        self._socket = socket

    async def receive(self) -> str | bytes:
        """See ``wire.Transport``."""
        try:
            message = await self._socket.receive()
        except (OSError, WebSocketDisconnected) as error:
            raise GoneError from error
        if message["type"] == "websocket.disconnect":
            raise GoneError
        text: str | None = message.get("text")
        data: bytes | None = message.get("bytes")
        return text if text is not None else data or b""

    async def send(self, message: str | bytes) -> None:
        """See ``wire.Transport``."""
        try:
            if isinstance(message, str):
                await self._socket.send_text(message)
            else:
                await self._socket.send_bytes(message)
        except (OSError, WebSocketDisconnect, WebSocketDisconnected) as error:
            raise GoneError from error

    def backlog(self) -> int:
        """See ``wire.Transport``."""
        count: Callable[[], int] = self._socket.scope["state"].get("backlog", int)
        return count()

    async def close(self, code: int, reason: str) -> None:
        """See ``wire.Transport``."""
        with contextlib.suppress(OSError, RuntimeError, WebSocketDisconnect):
            await self._socket.close(code, reason)


class _Stage:
    """All live connections of a gateway."""

    def __init__(
        self, engine: LiveEngine, desk: Desk, voices: VoiceShelf, veil: Veil, limits: LiveLimits, most_new: int
    ) -> None:
        self._most_new = most_new
        self._engine, self._desk, self._voices, self._veil, self._limits = engine, desk, voices, veil, limits
        self._metrics: Metrics | None = None
        self._new = self._sessions = 0

    async def enter(self, socket: WebSocket) -> None:
        """One connection, from its beginning to its end."""
        # A replica knows its place in Ray only after the application was built.
        metrics = self._metrics = self._metrics or Metrics()
        transport = SocketTransport(socket)
        await socket.accept()
        try:
            first = await self._first(transport)
            with socket.scope["state"]["enter"](first.key):
                ending = await self._session(socket, transport, first, metrics)
            metrics.live_ended(ending.outcome)
        except GoneError:
            metrics.live_ended("refused")
        except RocktopError as error:
            metrics.live_ended("refused")
            problem = self._explain(socket, error)
            with contextlib.suppress(GoneError):
                await transport.send(pack(problem))
            await transport.close(close_code(error), close_reason(problem.detail))

    async def _first(self, transport: SocketTransport) -> Start | Resume:
        """The first message. Raises SilentError, ProtocolError, RateLimitedError, GoneError."""
        if self._new >= self._most_new:
            raise RateLimitedError("too many connections wait here without saying what they want")
        self._new += 1
        try:
            async with asyncio.timeout(self._limits.start):
                message = parse_client(await transport.receive())
        except TimeoutError as error:
            raise SilentError(f"say 'start' or 'resume' within {self._limits.start:g} s") from error
        finally:
            self._new -= 1
        if not isinstance(message, Start | Resume):
            raise ProtocolError("the first message must be 'start' or 'resume'")
        return message

    async def _session(
        self, socket: WebSocket, transport: SocketTransport, first: Start | Resume, metrics: Metrics
    ) -> Ending:
        state = socket.scope["state"]
        behind = Behind(
            self._engine,
            self._limits,
            replica_draining,
            lambda error: self._explain(socket, error),
            lambda: self._sessions,
        )
        opening = Opening(behind, self._desk, self._find, metrics, state.get("owner"))
        per_second = first.rate * SAMPLE_BYTES[first.format] if isinstance(first, Start) else MOST_BINARY
        early = Early(transport, self._limits.backlog_of(per_second))
        wire = Wire(early, self._limits.unread, self._limits.unread_bytes)
        runner = await early.heed(
            opening.begin(first, wire) if isinstance(first, Start) else opening.resume(first, wire)
        )
        state["facts"] = {"session": runner.session}
        self._count(1, metrics)
        try:
            return await runner.run()
        finally:
            state["facts"] = runner.facts()
            self._count(-1, metrics)

    async def _find(self, name: str) -> VoiceRef:
        return await run_in_threadpool(self._voices.refer, name)

    def _explain(self, socket: WebSocket, error: BaseException) -> Problem:
        return told(error, socket.scope, self._veil)

    def _count(self, change: int, metrics: Metrics) -> None:
        self._sessions += change
        metrics.live_sessions(self._sessions)
