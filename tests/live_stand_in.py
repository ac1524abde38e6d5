"""A small server of ``/v1/stream`` for tests of clients: what comes in goes out ``delay`` later, and it fails on order.

It speaks the real protocol (``rocktop_ray.live.protocol``). ``key`` is heard as loudness, so that a change can be
measured: each octave down halves the level.
"""

from __future__ import annotations

import asyncio
import itertools
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from starlette.types import ASGIApp, Receive, Scope, Send
from starlette.websockets import WebSocket, WebSocketDisconnect

from rocktop_ray.errors import ProtocolError
from rocktop_ray.live.messages import (
    PATH,
    Applied,
    Audio,
    Bypass,
    Change,
    ChangeVoice,
    CloseCode,
    End,
    Ended,
    Flags,
    Notice,
    Ping,
    Pong,
    Problem,
    Resume,
    Spread,
    Start,
    Started,
    Stats,
    TextMessage,
)
from rocktop_ray.live.protocol import pack, pack_audio, parse_client
from rocktop_ray.protocols import Array


@dataclass
class Session:
    start: Start
    delay: int
    taken: list[Array] = field(default_factory=list)
    """Every block of input, by its number."""
    settings: dict[str, Any] = field(default_factory=dict)
    voice: str = ""
    bypass: bool = False
    answered: int = -1

    def answer(self, audio: Audio) -> Audio:
        """The same samples, ``delay`` later."""
        if audio.seq < len(self.taken):
            assert np.array_equal(self.taken[audio.seq], audio.samples), "sent again, but other samples"
        else:
            assert audio.seq == len(self.taken), f"block {audio.seq} after {len(self.taken) - 1}"
            assert audio.position == sum(map(len, self.taken)), "a gap in the clock"
            self.taken.append(audio.samples)
        whole = np.concatenate([np.zeros(self.delay, np.float32), *self.taken])
        gain = 1.0 if self.bypass else 2.0 ** (self.settings.get("key", 0) / 12)
        samples = whole[audio.position :][: len(audio.samples)] * np.float32(gain)
        self.answered = max(self.answered, audio.seq)
        return Audio(audio.seq, audio.position, samples, Flags.BYPASS if self.bypass else Flags.NONE)


class StandIn:
    """What to do wrong is set on it while it runs; what clients said is in ``heard``."""

    def __init__(self, delay_ms: float = 60) -> None:
        self.delay_ms = delay_ms
        self.heard: list[Any] = []
        """Text messages of all clients."""
        self.sessions: dict[str, Session] = {}
        self.refusal: tuple[CloseCode, Problem] | None = None
        """Every start is answered with it."""
        self.drops = 0
        """So many connections are closed after 10 more blocks."""
        self.forgetful = False
        """Sessions are gone when they are to be resumed."""
        self.late_every = 0
        self.notice: Notice | None = None
        """Said once, with the next statistics."""
        self.key: str | None = None
        self._names = itertools.count()

    def said(self, kind: type[Any]) -> list[Any]:
        return [message for message in self.heard if isinstance(message, kind)]

    def around(self, app: ASGIApp) -> ASGIApp:
        """``app``, with this as its ``/v1/stream``."""

        async def both(scope: Scope, receive: Receive, send: Send) -> None:
            if scope["type"] == "websocket" and scope["path"] == PATH:
                await self._serve(WebSocket(scope, receive, send))
            else:
                await app(scope, receive, send)

        return both

    async def _serve(self, socket: WebSocket) -> None:
        await socket.accept()
        try:
            await self._talk(socket)
        except WebSocketDisconnect:
            pass
        except (ProtocolError, AssertionError) as error:
            await socket.close(CloseCode.BAD_MESSAGE, str(error)[:120])
            self.heard.append(error)

    async def _talk(self, socket: WebSocket) -> None:
        first = parse_client(await socket.receive_text())
        assert isinstance(first, Start | Resume)
        self.heard.append(first)
        if self.key is not None and first.key != self.key:
            return await self._refuse(socket, CloseCode.KEY, Problem("unauthorized", "Key", "a key is needed", 401))
        if isinstance(first, Start):
            if self.refusal is not None:
                return await self._refuse(socket, *self.refusal)
            name = f"session-{next(self._names)}"
            delay = round(first.rate * self.delay_ms / 1000)
            session = Session(first, delay, settings={"key": 0, **first.settings}, voice=first.voice)
            self.sessions[name] = session
        else:
            name = first.session
            if self.forgetful or name not in self.sessions:
                return await self._refuse(socket, CloseCode.GONE, Problem("gone", "Gone", "no such session", 410))
            session = self.sessions[name]
        rate = session.start.rate
        # What the client still has to have: the last blocks before the drop, whatever it received.
        wanted = max(0, len(session.taken) - 3) if isinstance(first, Resume) else 0
        started = Started(
            name,
            "s3cret",
            session.voice,
            rate,
            session.delay,
            1000 * session.delay / rate,
            0.5,
            wanted,
            session.settings,
        )
        await self._say(socket, started)
        stats = asyncio.create_task(self._report(socket, session))
        try:
            await self._stream(socket, session)
        finally:
            stats.cancel()

    async def _stream(self, socket: WebSocket, session: Session) -> None:
        blocks = 0
        while True:
            message = await socket.receive()
            if message["type"] == "websocket.disconnect":
                raise WebSocketDisconnect(message["code"])
            said = parse_client(message.get("bytes") or message["text"], "f32", session.start.rate)
            if isinstance(said, Audio):
                answer = session.answer(said)
                if self.late_every and said.seq % self.late_every == 0:
                    answer = Audio(answer.seq, answer.position, answer.samples, answer.flags | Flags.LATE)
                await socket.send_bytes(pack_audio(answer))
                blocks += 1
                if self.drops and blocks >= 10:
                    self.drops -= 1
                    await socket.close(1012)
                    return
                continue
            self.heard.append(said)
            if isinstance(said, End):
                return await self._finish(socket, session)
            if isinstance(said, Ping):
                await self._say(socket, Pong(said.at))
                continue
            if isinstance(said, Change):
                session.settings = {**session.settings, **said.settings}
            elif isinstance(said, ChangeVoice):
                session.voice = said.voice
            elif isinstance(said, Bypass):
                session.bypass = said.on
            after = len(session.taken)
            await self._say(socket, Applied(session.settings, session.voice, session.bypass, after, session.delay))

    async def _finish(self, socket: WebSocket, session: Session) -> None:
        samples = sum(map(len, session.taken))
        whole = np.concatenate([np.zeros(session.delay, np.float32), *session.taken])
        await socket.send_bytes(pack_audio(Audio(len(session.taken), samples, whole[samples:], Flags.LAST)))
        await self._say(socket, Ended(samples + session.delay, 0, 0))
        await socket.close(1000)

    async def _report(self, socket: WebSocket, session: Session) -> None:
        while True:
            await asyncio.sleep(0.5)
            kept = max(-1, session.answered - 5)
            seconds = sum(map(len, session.taken)) / session.start.rate
            spread = Spread(3.0, 5.5, 9.0)
            await self._say(
                socket, Stats(seconds, session.answered, kept, spread, 0.5, -20.0, 0, 0, 0, 0.25, len(self.sessions))
            )
            if self.notice is not None:
                notice, self.notice = self.notice, None
                await self._say(socket, notice)

    async def _refuse(self, socket: WebSocket, code: CloseCode, problem: Problem) -> None:
        await self._say(socket, problem)
        await socket.close(code, problem.title)

    async def _say(self, socket: WebSocket, message: TextMessage) -> None:
        await socket.send_text(pack(message))
