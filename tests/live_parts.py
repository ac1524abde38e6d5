"""A live engine whose effect is known, and a client at the other end of a pipe, for tests of sessions."""

from __future__ import annotations

import asyncio
import math
import struct
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from virtual_time import run_in_virtual_time

from rocktop_ray.errors import RocktopError, SettingsError, StateMissingError, VoiceNotFoundError
from rocktop_ray.live import messages, protocol
from rocktop_ray.live.messages import Audio, Flags, Problem, ServerMessage, Start
from rocktop_ray.protocols import Array
from rocktop_ray.settings import ConvertSettings
from serve_apps.config import LiveConfig
from serve_apps.live.desk import LocalDesk
from serve_apps.live.engine import Desk, Fed, Feed, HopCost, StreamFacts
from serve_apps.live.session.endings import Ending
from serve_apps.live.session.limits import LiveLimits
from serve_apps.live.session.opening import Opening
from serve_apps.live.session.runner import Behind
from serve_apps.live.session.wire import GoneError, Wire
from serve_apps.observe.metrics import Metrics
from serve_apps.orders import VoiceRef

RATE = 8000
HOP = 320
LATE = 100


def gain(settings: ConvertSettings, voice: str) -> float:
    return 2 ** (settings.key / 12) * (1 if voice == "anna" else -1)


class GainEngine:
    """Delays by 100 samples, and more where blocks do not fit hops; the key is a gain, and voice ``berta`` a sign.

    State is the last of the take. ``slow``: seconds per call; ``fails``: raised by the next calls.
    """

    def __init__(self) -> None:
        self.slow = 0.0
        self.fails: deque[BaseException] = deque()
        self.feeds: list[Feed] = []
        self.kept: dict[str, tuple[int, Array]] = {}
        self.forgotten: list[str] = []

    async def open(self, voice: VoiceRef, rate: int, multiple: int, settings: ConvertSettings) -> StreamFacts:
        if settings.speaker > 2:
            raise SettingsError("the voice has speakers 0 to 2")
        hop = HOP * rate // RATE
        delay = LATE + hop - math.gcd(hop, multiple)
        return StreamFacts(delay, hop, True, ConvertSettings(), HopCost(voice.id, 1e-3, 1e-3, hop / rate))

    async def feed(self, feed: Feed, spare: Feed | None = None) -> Fed:
        self.feeds.append(feed)
        await asyncio.sleep(self.slow)
        if self.fails:
            raise self.fails.popleft()
        delay = (await self.open(feed.voice, feed.rate, feed.multiple, ConvertSettings())).delay
        if feed.state is not None:
            at, past = struct.unpack("<I", feed.state[:4])[0], np.frombuffer(feed.state[4:], "<f4")
        elif feed.seq == 0:
            at, past = 0, np.zeros(delay, np.float32)
        else:
            at, past = self.kept.pop(feed.session, (-1, np.zeros(0, np.float32)))
        if at != feed.seq:
            raise StateMissingError("send it")
        waves = []
        for piece in feed.pieces:
            assert len(piece.samples) % feed.multiple == 0
            joined = np.concatenate([past, piece.samples])
            take, past = joined[: len(piece.samples)], joined[len(piece.samples) :]
            plain = piece.bypass or piece.skip
            waves.append(take if plain else take * np.float32(gain(piece.settings, feed.voice.name)))
        at += len(feed.pieces)
        self.kept[feed.session] = (at, past)
        state = struct.pack("<I", at) + past.tobytes() if feed.want_state else None
        return Fed(tuple(waves), (delay,) * len(waves), state, self.slow, 0.0, "here")

    async def forget(self, session: str) -> None:
        self.forgotten.append(session)


class Pipe:
    """One end of a connection; ``other`` is the client's."""

    def __init__(self) -> None:
        self.to_server: asyncio.Queue[str | bytes | None] = asyncio.Queue()
        self.to_client: asyncio.Queue[str | bytes | None] = asyncio.Queue()
        self.closed: tuple[int, str] | None = None
        self.broken = False
        self.bytes = 0
        self.reads = asyncio.Event()
        self.reads.set()

    async def receive(self) -> str | bytes:
        message = await self.to_server.get()
        if message is None or self.broken:
            raise GoneError
        return message

    async def send(self, message: str | bytes) -> None:
        await self.reads.wait()
        if self.broken:
            raise GoneError
        self.to_client.put_nowait(message)

    def backlog(self) -> int:
        return self.bytes

    async def close(self, code: int, reason: str) -> None:
        self.closed = (code, reason)
        self.to_client.put_nowait(None)

    def vanish(self) -> None:
        self.broken = True
        self.to_server.put_nowait(None)


async def find(name: str) -> VoiceRef:
    if name not in ("anna", "berta"):
        raise VoiceNotFoundError(f"no voice {name}")
    return VoiceRef(f"{name}@1", name)


def explain(error: BaseException) -> Problem:
    known = error if isinstance(error, RocktopError) else RocktopError(repr(error))
    return Problem(known.code, "Error", known.message, known.http_status, known.stage)


class Stage:
    """An engine, a desk, and sessions over pipes."""

    def __init__(self, engine: Any, desk: Desk, **limits: Any) -> None:
        self.engine, self.desk = engine, desk
        self.limits = LiveLimits(**limits)
        self.draining = False

    async def serve(self, pipe: Pipe, owner: str | None = None) -> Ending:
        """What the route does, without its web."""
        behind = Behind(self.engine, self.limits, lambda: self.draining, explain)
        opening = Opening(behind, self.desk, find, Metrics(), owner)
        first = protocol.parse_client(await pipe.receive())
        wire = Wire(pipe, self.limits.unread, self.limits.unread_bytes)
        if isinstance(first, Start):
            runner = await opening.begin(first, wire)
        else:
            assert isinstance(first, messages.Resume)
            runner = await opening.resume(first, wire)
        return await runner.run()


class Client:
    """Sends a take in blocks, obeys the window, keeps what comes back."""

    def __init__(self, stage: Stage, take: Array, sizes: Sequence[int], start: Start) -> None:
        self.stage, self.take, self.start = stage, take, start
        self.cuts = [0]
        while self.cuts[-1] < len(take):
            self.cuts.append(min(len(take), self.cuts[-1] + sizes[(len(self.cuts) - 1) % len(sizes)]))
        self.outputs: dict[int, Audio] = {}
        self.messages: list[ServerMessage] = []
        self.started: messages.Started | None = None
        self.pipe = Pipe()
        self.served: asyncio.Task[Ending] | None = None
        self.next = 0

    @property
    def blocks(self) -> int:
        return len(self.cuts) - 1

    @property
    def received(self) -> int:
        return max(self.outputs, default=-1)

    @property
    def stream(self) -> Array:
        return np.concatenate([self.outputs[seq].samples for seq in sorted(self.outputs)])

    def of(self, kind: type[Any]) -> list[Any]:
        return [message for message in self.messages if isinstance(message, kind)]

    def codes(self) -> list[str]:
        return [notice.code for notice in self.of(messages.Notice)]

    async def connect(self) -> Client:
        """Start, or resume; until the server says which block it wants."""
        self.pipe = Pipe()
        self.served = asyncio.create_task(self.stage.serve(self.pipe))
        first: Any = self.start
        if self.started is not None:
            first = messages.Resume(self.started.session, self.started.secret, self.received)
        self.say(first)
        seen = len(self.of(messages.Started))
        while len(self.of(messages.Started)) == seen:
            if self.served.done():
                self.served.result()
            await self.hear(1)
        self.started = self.of(messages.Started)[-1]
        self.next = self.started.next
        return self

    def say(self, message: Any) -> None:
        self.pipe.to_server.put_nowait(protocol.pack(message))

    def send(self) -> None:
        """The next block."""
        first, end = self.cuts[self.next], self.cuts[self.next + 1]
        audio = Audio(self.next, first, self.take[first:end])
        self.pipe.to_server.put_nowait(protocol.pack_audio(audio, self.start.format))
        self.next += 1

    async def hear(self, seconds: float) -> bool:
        """One message; False if none came, or the connection ended."""
        if self.pipe.closed is not None and self.pipe.to_client.empty():
            await asyncio.sleep(0.001)
            return False
        try:
            message = await asyncio.wait_for(self.pipe.to_client.get(), seconds)
        except TimeoutError:
            return False
        if message is None:
            return False
        parsed = protocol.parse_server(message, self.start.format, self.start.rate)
        if isinstance(parsed, Audio):
            assert parsed.seq not in self.outputs, "answered twice"
            assert parsed.seq == self.received + 1, "answered out of order"
            self.outputs[parsed.seq] = parsed
        else:
            self.messages.append(parsed)
        return True

    async def sing(self, until: int | None = None, *, real_time: bool = False) -> Client:
        """Send blocks up to number ``until``, with no more unanswered than the window; or as time passes."""
        end = self.blocks if until is None else until
        clock = asyncio.get_running_loop().time
        began, first = clock(), self.cuts[self.next]
        assert self.started is not None
        while self.next < end:
            if real_time:
                wait = (self.cuts[self.next + 1] - first) / self.start.rate - (clock() - began)
                while wait > 0:
                    await self.hear(wait)
                    wait = (self.cuts[self.next + 1] - first) / self.start.rate - (clock() - began)
            else:
                while self.cuts[self.next + 1] - self.cuts[self.received + 1] > self.started.window * self.start.rate:
                    assert await self.hear(60)
            self.send()
        return self

    async def end(self) -> Client:
        """Until the server has closed."""
        self.say(messages.End())
        return await self.listen()

    async def listen(self, seconds: float = 60) -> Client:
        """Hear all until the connection ends."""
        while await self.hear(seconds):
            pass
        assert self.pipe.closed is not None
        return self


def sung(seconds: float, rate: int = RATE) -> Array:
    at = np.arange(round(seconds * rate)) / rate
    return (0.4 * np.sin(2 * np.pi * 220 * at) * (1 + 0.3 * np.sin(2 * np.pi * 3 * at))).astype(np.float32)


def late_take(take: Array, delay: int) -> Array:
    """The take and the flush, ``delay`` late."""
    return np.concatenate([np.zeros(delay, np.float32), take])


def flagged(client: Client, flag: Flags) -> list[int]:
    return [seq for seq, audio in client.outputs.items() if audio.flags & flag]


START = Start("anna", RATE, "f32", HOP, "free")
LIVE = replace(START, pace="live")


def run(work: Callable[..., Awaitable[Any]], **limits: Any) -> Any:
    """``work`` with a stage of its own, in virtual time: the machine may be busy."""

    async def all_of_it() -> Any:
        return await work(Stage(GainEngine(), LocalDesk(LiveConfig(resume_seconds=5)), **limits))

    return run_in_virtual_time(all_of_it())
