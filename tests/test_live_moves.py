"""Sessions on a real Ray Serve whose gateway is killed, or replaced with all the rest, while they sing."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from live_voices import cut, take
from serve_cluster import PITCH, kill_replica, small_config

from rocktop_ray.live.client import LiveClient
from rocktop_ray.live.events import Resumed
from rocktop_ray.live.messages import Flags, Notice, Start

pytestmark = pytest.mark.xdist_group("ray")

WINDOWS = {"hop": 10, "ahead": 2, "left": 20, "pitch_left": 10, "acoustic_left": 20}
LIVE = {"cpus": 0.01, "preload": [], "pitch": PITCH, "windows": WINDOWS, "load": 100.0, "resume_seconds": 120}
BLOCK, RATE = 1764, 44_100


@pytest.fixture(scope="module")
def deploy(ray_cluster: int, ray_home: Path) -> Iterator[Callable[[int], str]]:
    """Deploys the whole application; called again with another number, it replaces all of it."""
    from ray import serve

    from serve_apps.app import build_app

    def run(kept: int) -> str:
        config = small_config(ray_home, store=str(ray_home / "moves"), live={**LIVE, "kept": kept})
        serve.run(build_app(config), name="moves", route_prefix="/")
        return f"http://127.0.0.1:{ray_cluster}"

    yield run
    serve.delete("moves")


def test_a_gateway_that_is_killed_or_replaced_is_not_heard(deploy: Callable[[int], str]) -> None:
    """The rest of the stream waits until it is done: more than the client and the server take before."""
    address, blocks = deploy(8), cut(take(10.0), BLOCK)
    events: list[Any] = []

    async def streamed(meanwhile: Callable[[], Any]) -> np.ndarray:
        start = Start("anna", RATE, block=BLOCK, pace="free")
        client = LiveClient(address, start, patience=120.0, on_event=events.append)
        parts = []
        async with client:
            async for audio in client.convert(blocks):
                parts.append(audio.samples)
                assert not audio.flags & ~Flags.LAST
                if len(parts) == 30:
                    await asyncio.to_thread(meanwhile)
        return np.concatenate(parts)

    killed = asyncio.run(streamed(lambda: kill_replica("moves", "Gateway")))
    assert any(isinstance(event, Resumed) for event in events)
    told: set[str] = set()
    for kept in (
        9,
        10,
        11,
    ):  # Serve may cut the old gateway off before it has said that it leaves
        events.clear()
        replaced = asyncio.run(streamed(lambda kept=kept: deploy(kept)))
        assert any(isinstance(event, Resumed) for event in events)
        assert np.array_equal(replaced, killed) and np.abs(killed).max() > 0.01
        told |= {event.code for event in events if isinstance(event, Notice)}
        if "draining" in told:
            break
    assert "draining" in told
