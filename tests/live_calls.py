"""What tests of the live client send and check."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

import numpy as np
from live_echo import EchoServer

from rocktop_ray.live.client import LiveClient
from rocktop_ray.live.events import Event
from rocktop_ray.live.messages import Audio, Start

RATE = 8000
FREE = Start("bundle", RATE, block=320, pace="free")


def song(samples: int = 20_000) -> np.ndarray:
    return np.random.default_rng(1).uniform(-0.5, 0.5, samples).astype(np.float32)


def cut(audio: np.ndarray, length: int = 320) -> list[np.ndarray]:
    return [audio[start : start + length] for start in range(0, len(audio), length)]


def joined(answers: list[Audio], delay: int = 700) -> np.ndarray:
    """All output without its delay; checks numbers and places."""
    assert [audio.seq for audio in answers] == list(range(len(answers)))
    assert [audio.position for audio in answers] == [
        sum(len(a.samples) for a in answers[:i]) for i in range(len(answers))
    ]
    return np.concatenate([audio.samples for audio in answers])[delay:]


async def through(
    server: EchoServer, blocks: list[np.ndarray], start: Start = FREE, **options: Any
) -> tuple[list[Audio], list[Event]]:
    """All that comes back, and what happened meanwhile."""
    events: list[Event] = []
    async with server.running(), LiveClient(server.url, start, on_event=events.append, **options) as client:
        async with asyncio.timeout(120):
            return [audio async for audio in client.convert(blocks)], events


async def heard(client: LiveClient, feed: Coroutine[Any, Any, None]) -> list[Audio]:
    """All that comes back while ``feed`` sends."""
    feeding = asyncio.create_task(feed)
    answers = []
    while (audio := await client.receive()) is not None:
        answers.append(audio)
    await feeding
    return answers
