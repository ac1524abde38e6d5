"""Live streams in split placement on a real Ray Serve: heard in one deployment, sung in another."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from live_voices import cut, feeds, take
from serve_cluster import PITCH, replica_pids, small_config

from actors.threads import use_threads_here
from rocktop_ray.errors import StageLostError
from rocktop_ray.live.layout import LiveLayout
from rocktop_ray.live.open import open_live
from rocktop_ray.live.stream import LiveStream
from rocktop_ray.protocols import Array
from rocktop_ray.settings import ConvertSettings
from serve_apps.live.engine import Feed
from serve_apps.live.transport.remote import ServeEngine
from serve_apps.voices import VoiceShelf

pytestmark = pytest.mark.xdist_group("ray")

WINDOWS = {"hop": 10, "ahead": 2, "left": 20, "pitch_left": 10, "acoustic_left": 20}
BLOCK, RATE = 1764, 44_100


@pytest.fixture(scope="module")
def split(ray_cluster: int, ray_home: Path) -> Iterator[Any]:
    """The handle of ``Live``, with two ears."""
    from ray import serve

    from serve_apps.app import build_live

    live = {"replicas": 1, "cpus": 0.01, "preload": [], "pitch": PITCH, "windows": WINDOWS}
    config = small_config(ray_home, placement="split", live={**live, "ears": {"replicas": 2, "cpus": 0.01}})
    yield serve.run(build_live(config)[0], name="split", route_prefix=None)
    serve.delete("split")


def fused(ray_home: Path, blocks: list[Array]) -> Array:
    """What one process gives, with as many threads."""
    converter = open_live("anna", layout=LiveLayout(**WINDOWS), pitch=PITCH, library=ray_home / "voices")
    stream = LiveStream(converter, rate=RATE, multiple=BLOCK)
    with ThreadPoolExecutor(1, initializer=partial(use_threads_here, 1)) as alone:
        return np.concatenate(list(alone.map(stream.feed, blocks)))


def test_a_split_stream_is_the_fused_one_to_the_bit_whoever_is_killed(split: Any, ray_home: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ROCKTOP_HOME", str(ray_home))
        anna = VoiceShelf.open(small_config(ray_home)).refer("anna")
    blocks = cut(take(4.0)[: 100 * BLOCK], BLOCK)
    engine, old = ServeEngine(split), replica_pids("split", "LiveEars")
    assert len(old) == 2

    async def run() -> tuple[Array, int]:
        facts = await engine.open(anna, RATE, BLOCK, ConvertSettings())
        assert facts.cost.fixed + facts.cost.each > 0
        sent: list[Feed] = [replace(feed, voice=anna, multiple=BLOCK) for feed in feeds("s", "anna", blocks)]
        waves: list[Array] = []
        kept: bytes | None = None
        sends, losses = False, 0
        while len(waves) < len(sent):
            if len(waves) == 50 and old:  # the one that is heard with, or the other one
                os.kill(old.pop(), signal.SIGKILL)
            if len(waves) == 75 and old:
                while len(set(replica_pids("split", "LiveEars")) - set(old)) < 1:
                    await asyncio.sleep(0.1)
                os.kill(old.pop(), signal.SIGKILL)
            try:
                answer = await engine.feed(replace(sent[len(waves)], state=kept if sends else None))
            except StageLostError:  # the new one does not stand yet
                sends, losses = True, losses + 1
                await asyncio.sleep(0.1)
                continue
            kept, sends = answer.state, False
            waves += answer.waves
            await asyncio.sleep(0.04)
        await engine.forget("s")
        return np.concatenate(waves), losses

    wave, losses = asyncio.run(run())
    assert np.array_equal(wave, fused(ray_home, blocks)) and np.abs(wave).max() > 0.01
    assert losses < 1000  # of a tenth of a second: the new one has to start
