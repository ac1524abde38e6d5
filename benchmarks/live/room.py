"""What the service says of its room: live streams that it lets in, and sessions that sit."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Mapping, Sequence

import numpy as np

from rocktop_ray.errors import RocktopError
from rocktop_ray.live.client import LiveClient
from rocktop_ray.live.events import Event
from rocktop_ray.live.messages import Start, Stats

_LOADED = 0.85
"""Share of the largest replica's memory from which one has its voice."""


async def capacity(url: str, voice: str) -> int:
    """Live streams that the machine says it can take."""
    sitting: list[LiveClient] = []
    try:
        while len(sitting) < 64:
            client = LiveClient(url, Start(voice, 48_000), patience=1)
            await client.open()
            sitting.append(client)
    except RocktopError as error:
        print(f"{len(sitting)} live streams, then: {error.message}", file=sys.stderr, flush=True)
    for client in sitting:
        await client.close()
    return len(sitting)


async def seats(url: str, voice: str) -> int:
    """Sessions that sit when only one does, as the server's statistics have it; -1 if it does not answer."""
    seen: list[int] = []

    def note(event: Event) -> None:
        if isinstance(event, Stats):
            seen.append(event.sessions)

    try:
        async with LiveClient(url, Start(voice, 48_000), on_event=note) as client:
            for _ in range(100):
                await client.send(np.zeros(1920, np.float32))
                await asyncio.sleep(0.04)
    except RocktopError:
        return -1
    return seen[-1] if seen else -1


def loaded(memory: Mapping[int, Sequence[tuple[float, float]]], replicas: Sequence[int]) -> list[int]:
    """Those that have their voice, by what they hold. memory: MiB over seconds by process."""
    held = {pid: series[-1][1] for pid, series in memory.items() if pid in replicas}
    return [pid for pid, mib in held.items() if mib >= _LOADED * max(held.values())]
