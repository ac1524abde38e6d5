"""Clients that do what they must not, over plain WebSockets. Each returns how its connection ended."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Awaitable, Callable
from typing import Any

import numpy as np
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, WebSocketException

from rocktop_ray.live.messages import HEADER, MOST_TEXT, Audio, CloseCode, Start
from rocktop_ray.live.protocol import pack, pack_audio

PATIENCE = 30.0
"""Seconds within which whoever misbehaves must be told so."""
BLOCK = 1920
TOLD = {int(code) for code in CloseCode} - {CloseCode.FAULT, CloseCode.ENDED}
"""Codes with which a client that misbehaves may be closed."""


def start(voice: str, pace: str = "live", **more: Any) -> str:
    """The first message."""
    return pack(Start(voice, 48_000, "f32", BLOCK, "live" if pace == "live" else "free", **more))


def audio(seq: int, samples: Any = None, position: int | None = None) -> bytes:
    """A block."""
    block = np.zeros(BLOCK, np.float32) if samples is None else samples
    return pack_audio(Audio(seq, seq * BLOCK if position is None else position, block))


async def garbage(url: str, voice: str) -> str:
    """Sends one of many kinds of nonsense."""
    name, messages = random.choice(list(_nonsense(voice).items()))
    async with connect(url, open_timeout=PATIENCE, max_size=None) as socket:
        try:
            for message in messages:
                await socket.send(message)
            return f"{name}: {await _ending(socket)}"
        except ConnectionClosed as closed:
            return f"{name}: {_code(closed)}"


async def too_fast(url: str, voice: str) -> str:
    """Says that it is live, and sends ten seconds at once."""
    async with connect(url, open_timeout=PATIENCE) as socket:
        try:
            await socket.send(start(voice))
            hearing = asyncio.create_task(_ending(socket))
            for seq in range(10 * 25):
                await socket.send(audio(seq))
            return await hearing
        except ConnectionClosed as closed:
            return str(_code(closed))


async def deaf(url: str, voice: str) -> str:
    """Sends two minutes and never reads: the server must close, or hold it back, but keep nothing for it."""
    block = np.zeros(24_000, np.float32)
    async with connect(url, open_timeout=PATIENCE, max_queue=1) as socket:
        try:
            await socket.send(start(voice, "free"))
            async with asyncio.timeout(PATIENCE):
                for seq in range(120 * 48_000 // len(block)):
                    await socket.send(audio(seq, block, seq * len(block)))
        except TimeoutError:
            socket.transport.abort()
            return "held back"
        except ConnectionClosed as closed:
            return str(_code(closed))
        await asyncio.sleep(PATIENCE / 2)
        ending = await _ending(socket)
        return ending if ending.isdigit() else "took two minutes of audio at once"


async def silent(url: str, voice: str) -> str:
    """Begins and says nothing more, or does not even begin."""
    async with connect(url, open_timeout=PATIENCE) as socket:
        if random.random() < 0.5:
            await socket.send(start(voice))
        return await _ending(socket, 45.0)


async def vanishing(url: str, voice: str) -> str:
    """Is gone in the middle of its stream, without a word."""
    async with connect(url, open_timeout=PATIENCE) as socket:
        await socket.send(start(voice, random.choice(("live", "free"))))
        try:
            for seq in range(random.randrange(1, 20)):
                await socket.send(audio(seq))
                await asyncio.sleep(BLOCK / 48_000)
        except ConnectionClosed as closed:
            return str(_code(closed))
        socket.transport.abort()
    return "gone"


HOSTILE: dict[str, Callable[[str, str], Awaitable[str]]] = {
    "garbage": garbage,
    "too fast": too_fast,
    "deaf": deaf,
    "silent": silent,
    "vanishing": vanishing,
}


async def tried(what: str, url: str, voice: str) -> str:
    """One of them; also a connection that was not made says so."""
    try:
        return await HOSTILE[what](url, voice)
    except (OSError, TimeoutError, WebSocketException) as error:
        return f"no connection: {type(error).__name__}"


def well_told(what: str, ending: str) -> bool:
    """Whether a connection ended as it should."""
    if "no connection" in ending:
        return True  # counted apart
    if what == "vanishing" and ending == "gone":
        return True
    if what == "deaf" and ending == "held back":
        return True
    return ending.rsplit(": ", 1)[-1] in {str(code) for code in TOLD}


async def _ending(socket: ClientConnection, patience: float = PATIENCE) -> str:
    """Hear until it is closed: the code."""
    try:
        async with asyncio.timeout(patience):
            while True:
                await socket.recv()
    except ConnectionClosed as closed:
        return str(_code(closed))
    except TimeoutError:
        return "not closed"


def _code(closed: ConnectionClosed) -> int:
    return closed.rcvd.code if closed.rcvd is not None else 1006


def _nonsense(voice: str) -> dict[str, list[str | bytes]]:
    begin, noise = start(voice), random.randbytes(random.randrange(1, 4000))
    bad_head = HEADER.pack(7, 0, 9, 0, 0) + bytes(400)
    return {
        "bytes first": [noise],
        "text first": [noise.decode("latin-1")],
        "no type": [json.dumps({"version": 1})],
        "another version": [begin.replace('"version": 1', '"version": 99')],
        "deep": ['{"type":"start","settings":' + "[" * 4000 + "]" * 4000 + "}"],
        "long text": ['{"type":"start","voice":"' + "x" * (MOST_TEXT + 10) + '"}'],
        "no such voice": [start("no-such-voice")],
        "path as a voice": [start("../../etc/passwd")],
        "bad settings": [start(voice, settings={"key": 1e9})],
        "unknown setting": [start(voice, settings={"no_such_thing": 1})],
        "rate 0": [begin.replace("48000", "0")],
        "nothing to resume": ['{"type":"resume","version":1,"session":"x","secret":"y","received":-1}'],
        "bad header": [begin, bad_head],
        "odd bytes": [begin, audio(0)[:-3]],
        "header alone": [begin, audio(0)[: HEADER.size]],
        "not a number": [begin, audio(0, np.full(BLOCK, np.nan, np.float32))],
        "infinite": [begin, audio(0, np.full(BLOCK, np.inf, np.float32))],
        "gap in numbers": [begin, audio(0), audio(7)],
        "gap in samples": [begin, audio(0), audio(1, position=99)],
        "two seconds": [begin, audio(0, np.zeros(96_000, np.float32))],
        "begins twice": [begin, begin],
        "server's words": [begin, '{"type":"ended","samples":0,"late":0,"lost":0}'],
        "half JSON": [begin, '{"type":"settings","settings":{'],
        "bad change": [begin, audio(0), '{"type":"settings","settings":[]}'],
    }
