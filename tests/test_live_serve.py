"""Live sessions on a real Ray Serve: nothing is heard of replicas that are killed or replaced."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from live_voices import cut, feeds, take
from serve_cluster import PITCH, kill_replica, replica_pids, small_config

from rocktop_ray.errors import BusyError, StageLostError, StateMissingError
from rocktop_ray.live.client import LiveClient
from rocktop_ray.live.layout import LiveLayout
from rocktop_ray.live.messages import Audio, Flags, Start
from rocktop_ray.live.open import open_live
from rocktop_ray.live.stream import LiveStream
from rocktop_ray.protocols import Array
from rocktop_ray.settings import ConvertSettings
from serve_apps.live.engine import HopCost
from serve_apps.live.transport.remote import RemoteDesk, ServeEngine
from serve_apps.orders import VoiceRef
from serve_apps.voices import VoiceShelf

pytestmark = pytest.mark.xdist_group("ray")

WINDOWS = {"hop": 10, "ahead": 2, "left": 20, "pitch_left": 10, "acoustic_left": 20}
LIVE = {
    "replicas": 1,
    "cpus": 0.01,
    "preload": [],
    "pitch": PITCH,
    "windows": WINDOWS,
    "load": 100.0,
    "free_sessions": 2,
}
BLOCK, RATE = 1764, 44_100


@pytest.fixture(scope="module")
def served(ray_cluster: int, ray_home: Path) -> Iterator[str]:
    """The address of a whole application with two live replicas."""
    from ray import serve

    from serve_apps.app import build_app

    config = small_config(ray_home, store=str(ray_home / "live"), live={**LIVE, "replicas": 2})
    serve.run(build_app(config), name="live", route_prefix="/")
    yield f"http://127.0.0.1:{ray_cluster}"
    serve.delete("live")


def offline(ray_home: Path, blocks: list[Array]) -> Array:
    """What the library gives, from the first sample of the take on."""
    converter = open_live("anna", layout=LiveLayout(**WINDOWS), pitch=PITCH, library=ray_home / "voices")
    stream = LiveStream(converter, rate=RATE, multiple=BLOCK)
    return np.concatenate([*(stream.feed(block) for block in blocks), stream.flush()])[stream.delay :]


async def streamed(address: str, blocks: list[Array], meanwhile: Callable[[], Any] | None = None) -> list[Audio]:
    """All of a stream without deadlines; something happens when half of it has come back."""
    client = LiveClient(address, Start("anna", RATE, block=BLOCK, pace="free"), patience=60.0)
    answers: list[Audio] = []
    async with client:
        async for audio in client.convert(blocks):
            answers.append(audio)
            if meanwhile is not None and len(answers) == len(blocks) // 2:
                await asyncio.to_thread(meanwhile)
    assert client.ended is not None and client.ended.late == 0
    assert [answer.seq for answer in answers[: len(blocks)]] == list(range(len(blocks)))
    return answers


def joined(answers: list[Audio]) -> Array:
    return np.concatenate([answer.samples for answer in answers])


def test_a_stream_is_the_librarys_whatever_is_killed(served: str, ray_home: Path) -> None:
    blocks = cut(take(2.0), BLOCK)

    async def run() -> tuple[list[Audio], list[Audio]]:
        whole = await streamed(served, blocks)
        return whole, await streamed(served, blocks, lambda: kill_replica("live", "Live"))

    whole, killed = asyncio.run(run())
    assert all(not answer.flags & ~Flags.LAST for answer in whole)
    assert sum(bool(answer.flags & (Flags.LATE | Flags.BYPASS)) for answer in killed) == 0
    expected, wave = offline(ray_home, blocks), joined(whole)
    delay = len(wave) - len(expected)
    assert np.abs(wave[delay:] - expected).max() < 1e-5 and np.abs(expected).max() > 0.01
    assert np.array_equal(joined(killed), wave)


def test_one_session_too_many_is_refused(served: str) -> None:
    async def run() -> None:
        first, second, third = (LiveClient(served, Start("anna", RATE, block=BLOCK, pace="free")) for _ in range(3))
        await first.open()
        await second.open()
        with pytest.raises(BusyError) as error:
            await third.open()
        assert error.value.retry_after > 0
        await second.close()
        await asyncio.sleep(0.5)
        await first.close()

    asyncio.run(run())


def test_a_replaced_desk_knows_those_who_sit_again(served: str) -> None:
    from ray import serve

    async def run() -> None:
        desk = RemoteDesk(serve.get_deployment_handle("LiveDesk", "live"))
        cost = HopCost("anna", 0.001, 0.001, 0.04)
        await desk.admit("s", VoiceRef("anna", "anna"), RATE, True, sitting="one", cost=cost)
        kill_replica("live", "LiveDesk")
        assert (await desk.renew("s", "one")).sessions >= 1
        for state in (b"state", bytes(range(256)) * (6 << 12)):  # 6 MiB: more than Serve takes by gRPC
            await desk.park("s", "secret", state, sitting="one")
            await desk.leave("s", "one", keep=60.0)
            assert await desk.take("s", "secret", sitting="one") == state
        await desk.leave("s", "one")

    asyncio.run(run())


def test_a_redeploy_moves_streams_without_a_gap(ray_cluster: int, ray_home: Path) -> None:
    """Without the gateway, so that nothing but the computing processes is replaced."""
    from ray import serve

    from serve_apps.app import build_live

    def deploy(kept: int) -> Any:
        config = small_config(ray_home, live={**LIVE, "kept": kept})
        return serve.run(build_live(config)[0], name="moved", route_prefix=None)

    engine = ServeEngine(deploy(8))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ROCKTOP_HOME", str(ray_home))
        anna = VoiceShelf.open(small_config(ray_home)).refer("anna")
    takes = [cut(take(1.0, seed), BLOCK) for seed in (1, 2)]

    async def fed(session: str, blocks: list[Array], over: asyncio.Event) -> tuple[Array, set[str]]:
        """The blocks over and over, until the old replica is gone."""
        sent = [replace(feed, voice=anna, multiple=BLOCK) for feed in feeds(session, "anna", blocks)]
        waves: list[Array] = []
        replicas: set[str] = set()
        kept: bytes | None = None
        sends = False
        while len(waves) < len(sent) or not over.is_set():
            feed = replace(sent[len(waves) % len(sent)], seq=len(waves), state=kept if sends else None)
            try:
                answer = await engine.feed(feed)
            except (StageLostError, StateMissingError):  # where a machine is so slow that the old one was cut off
                sends = True
                continue
            kept, sends = answer.state, False
            waves += answer.waves
            replicas.add(answer.replica)
            await asyncio.sleep(0.02)
        return np.concatenate(waves), replicas

    async def run() -> list[tuple[Array, set[str]]]:
        await engine.open(anna, RATE, BLOCK, ConvertSettings())
        over = asyncio.Event()
        running = [asyncio.create_task(fed(f"s{n}", blocks, over)) for n, blocks in enumerate(takes)]
        before = replica_pids("moved", "Live")
        await asyncio.to_thread(deploy, 9)
        while set(before) & set(replica_pids("moved", "Live")):
            await asyncio.sleep(0.2)
        over.set()
        return await asyncio.gather(*running)

    results = asyncio.run(run())
    converter = open_live("anna", layout=LiveLayout(**WINDOWS), pitch=PITCH, library=ray_home / "voices")
    for (wave, replicas), blocks in zip(results, takes, strict=True):
        stream = LiveStream(converter, rate=RATE, multiple=BLOCK)
        count = len(wave) // BLOCK
        expected = np.concatenate([stream.feed(blocks[n % len(blocks)]) for n in range(count)])
        assert np.abs(wave - expected).max() < 1e-5
        assert len(replicas) == 2
    serve.delete("moved")
