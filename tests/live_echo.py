"""A small server of ``/v1/stream`` that gives the take back, later and at a gain, and misbehaves when told to."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any, NoReturn

import numpy as np
from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response

from rocktop_ray.live.messages import (
    Applied,
    Audio,
    Bypass,
    Change,
    CloseCode,
    End,
    Ended,
    Flags,
    Ping,
    Pong,
    Problem,
    Resume,
    Spread,
    Start,
    Started,
    Stats,
)
from rocktop_ray.live.protocol import pack, pack_audio, parse_client


@dataclass
class Session:
    """All of a stream."""

    start: Start
    delay: int
    secret: str = field(default_factory=lambda: secrets.token_hex(8))
    seq: int = 0
    position: int = 0
    line: np.ndarray = field(default_factory=lambda: np.zeros(0, np.float32))
    settings: dict[str, Any] = field(default_factory=dict)
    bypass: bool = False
    saved: tuple[Any, ...] = ()

    def save(self) -> None:
        self.saved = (self.seq, self.position, self.line.copy(), dict(self.settings), self.bypass)

    def restore(self) -> None:
        self.seq, self.position, line, settings, self.bypass = self.saved
        self.line, self.settings = line.copy(), dict(settings)

    def echo(self, samples: np.ndarray) -> np.ndarray:
        gain = 1.0 if self.bypass else 1.0 + self.settings.get("key", 0.0) / 16
        self.line = np.concatenate([self.line, samples * np.float32(gain)])
        out, self.line = self.line[: len(samples)], self.line[len(samples) :]
        return out


class EchoServer:
    """``do`` decides about each block of input: it may sleep, close or abort the connection, or send something else."""

    def __init__(self, delay: int = 700, save_every: int = 5, window: float = 0.5) -> None:
        self.delay, self.save_every, self.window = delay, save_every, window
        self.sessions: dict[str, Session] = {}
        self.url = ""
        self.first: list[Start | Resume] = []
        """The first message of each connection."""
        self.headers: list[str] = []
        self.blocks = 0
        """That came in all, over all connections."""
        self.most_unanswered = 0
        self.statuses: list[int] = []
        """HTTP statuses that handshakes after the first are refused with, one each."""
        self.welcome: Callable[[ServerConnection, int], Awaitable[bool]] | None = None
        """Asked for each connection with its number, before anything is read; True: it has dealt with it."""
        self.do: Callable[[ServerConnection, int], Awaitable[None]] | None = None
        """Called for each block with its count over all connections, before it is answered."""

    @asynccontextmanager
    async def running(self) -> AsyncIterator[EchoServer]:
        async with serve(
            self._connected, "127.0.0.1", 0, compression=None, close_timeout=0.2, process_request=self._refused
        ) as server:
            self.url = f"ws://127.0.0.1:{_port(server)}"
            yield self

    def _refused(self, socket: ServerConnection, request: Request) -> Response | None:
        return socket.respond(self.statuses.pop(0), "not now") if self.headers and self.statuses else None

    async def _connected(self, socket: ServerConnection) -> None:
        assert socket.request is not None
        self.headers.append(socket.request.headers.get("Authorization", ""))
        number = len(self.headers) - 1
        try:
            if self.welcome is not None and await self.welcome(socket, number):
                return
            message = parse_client(await socket.recv())
            assert isinstance(message, Start | Resume)
            self.first.append(message)
            if isinstance(message, Start):
                name, session = secrets.token_hex(4), Session(message, self.delay)
                session.line = np.zeros(self.delay, np.float32)
                session.settings, session.bypass = dict(message.settings), message.bypass
                session.save()
                self.sessions[name] = session
            else:
                name = message.session
                found = self.sessions.get(name)
                if found is None or found.secret != message.secret:
                    await refuse(socket, CloseCode.GONE, Problem("session_gone", "Gone", "no such session", 410))
                    return
                session = self.sessions[name] = replace(found)  # the old connection may still have the other one
                session.restore()
            await self._talk(socket, name, session, message.received if isinstance(message, Resume) else -1)
        except (ConnectionClosed, ConnectionAbortedError):
            pass

    async def _talk(self, socket: ServerConnection, name: str, session: Session, received: int) -> None:
        start = session.start
        await socket.send(
            pack(
                Started(
                    *(name, session.secret, start.voice, start.rate, session.delay, 1e3 * session.delay / start.rate),
                    *(self.window, session.seq, session.settings),
                )
            )
        )
        while True:
            message = parse_client(await socket.recv(), start.format, start.rate)
            if isinstance(message, Audio):
                assert (message.seq, message.position) == (session.seq, session.position)
                self.blocks += 1
                if self.do is not None:
                    await self.do(socket, self.blocks)
                await self._answer(socket, session, message.samples, received, Flags.NONE)
                if session.seq % self.save_every == 0:
                    session.save()
                    await socket.send(pack(stats(session)))
            elif isinstance(message, Change | Bypass):
                if isinstance(message, Change):
                    session.settings.update(message.settings)
                else:
                    session.bypass = message.on
                applied = Applied(session.settings, start.voice, session.bypass, session.seq, session.delay)
                await socket.send(pack(applied))
            elif isinstance(message, Ping):
                await socket.send(pack(Pong(message.at)))
            elif isinstance(message, End):
                samples, left = session.position, session.delay
                while left:
                    block = np.zeros(min(left, start.block), np.float32)
                    left -= len(block)
                    await self._answer(socket, session, block, received, Flags.LAST)
                await socket.send(pack(Ended(samples, 0, 0)))
                await socket.close(CloseCode.ENDED)
                return

    async def _answer(
        self, socket: ServerConnection, session: Session, samples: np.ndarray, received: int, flags: Flags
    ) -> None:
        audio = Audio(session.seq, session.position, session.echo(samples), flags)
        session.seq += 1
        session.position += len(samples)
        if audio.seq > received:
            await socket.send(pack_audio(audio, session.start.format))


def stats(session: Session) -> Stats:
    kept = session.saved[0] - 1
    spread = Spread(1.0, 2.0, 3.0)
    return Stats(session.position / session.start.rate, session.seq - 1, kept, spread, 0.5, -20.0, 0, 0, 0, 0.25, 1)


async def refuse(socket: ServerConnection, code: CloseCode, problem: Problem) -> None:
    await socket.send(pack(problem))
    await socket.close(code, problem.detail[:100])


def abort(socket: ServerConnection) -> NoReturn:
    """As if a cable were pulled."""
    socket.transport.abort()
    raise ConnectionAbortedError


def _port(server: Server) -> int:
    return int(next(iter(server.sockets)).getsockname()[1])
