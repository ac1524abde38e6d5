"""A client of ``/v1/stream`` that sings blocks of any size, and what the library makes of the same take."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import numpy as np
from live_server import LiveServer
from live_voices import tiny_converter
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from rocktop_ray.live import messages, protocol
from rocktop_ray.live.messages import Audio, Start, Started
from rocktop_ray.live.stream import LiveStream
from rocktop_ray.protocols import Array
from rocktop_ray.settings import ConvertSettings

RATE = 44_100
START = Start("anna", RATE, "f32", 1764, "free")


def run(work: Callable[[], Awaitable[Any]]) -> Any:
    async def timed() -> Any:
        async with asyncio.timeout(200):
            return await work()

    return asyncio.run(timed())


class Singer:
    """One session, over as many connections as it takes."""

    def __init__(self, server: LiveServer, start: Start, **options: Any) -> None:
        self.server, self.start, self.options = server, start, options
        self.outputs: dict[int, Audio] = {}
        self.messages: list[Any] = []
        self.started: Started | None = None
        self.socket: ClientConnection | None = None
        self.next, self.position = 0, 0

    async def connect(self) -> Singer:
        self.socket = await connect(self.server.url, proxy=None, **self.options)
        first: Any = self.start
        if self.started is not None:
            first = messages.Resume(
                self.started.session, self.started.secret, max(self.outputs, default=-1), self.start.key
            )
        await self.say(first)
        self.started = await self.until(Started)
        return self

    async def say(self, message: Any) -> None:
        await self.socket.send(protocol.pack(message))

    async def until(self, kind: type[Any], seq: int = -1) -> Any:
        """The next message of a kind; of audio, the answer of block ``seq``. None: the connection was closed."""
        while True:
            try:
                message = await self.socket.recv()
            except ConnectionClosed:
                return None
            parsed = protocol.parse_server(message, self.start.format, self.start.rate)
            if isinstance(parsed, Audio):
                assert parsed.seq == max(self.outputs, default=-1) + 1
                self.outputs[parsed.seq] = parsed
            else:
                self.messages.append(parsed)
            if isinstance(parsed, kind) and getattr(parsed, "seq", 0) >= seq:
                return parsed

    async def sing(self, audio: Array, sizes: list[int]) -> None:
        """Blocks of these sizes from where the server wants them; heard are those before the last 0.3 s."""
        starts = [0]
        while starts[-1] < len(audio):
            starts.append(min(len(audio), starts[-1] + sizes[(len(starts) - 1) % len(sizes)]))
        for seq in range(self.started.next, len(starts) - 1):
            block = Audio(seq, starts[seq], audio[starts[seq] : starts[seq + 1]])
            await self.socket.send(protocol.pack_audio(block, self.start.format))
            if seq % 8 == 0 and seq > 16:
                while max(self.outputs, default=-1) < seq - 16:
                    await self.until(Audio)

    async def end(self) -> Array:
        await self.say(messages.End())
        while await self.until(object) is not None:
            pass
        assert (self.socket.close_code, self.socket.close_reason) == (1000, "the stream has ended")
        return np.concatenate([self.outputs[seq].samples for seq in sorted(self.outputs)])


def whole(server: LiveServer, audio: Array, *keys: tuple[int, float]) -> Array:
    """What the library gives for the whole; ``keys``: (from sample, key)."""
    (name,) = (ref for ref in {*server.engine._voices.opened} if ref.startswith("anna"))
    stream = LiveStream(tiny_converter(name), ConvertSettings(key=1.0), rate=RATE)
    parts, changes = [], dict(keys)
    for start in range(0, len(audio), 1764):
        if start in changes:
            stream.change(ConvertSettings(key=changes[start]))
        parts.append(stream.feed(audio[start : start + 1764]))
    return np.concatenate([*parts, stream.flush()])
