"""The graph on a real Ray Serve: fused and split give the library's bytes, whatever dies on the way."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest
from serve_cluster import PITCH, kill_replica, replica_pids, small_config, take_bytes

from rocktop_ray.audio.formats import check_output
from rocktop_ray.engine import build_engine
from rocktop_ray.errors import BusyError, RocktopError, SettingsError, VoiceNotFoundError
from rocktop_ray.settings import ConvertSettings
from rocktop_ray.takes import convert_file
from serve_apps.config import ServeConfig
from serve_apps.dispatch import ServeConversions
from serve_apps.orders import Advanced, AudioBytes, Event, Finished, Order, Started, VoiceRef
from serve_apps.spool import Spool
from serve_apps.voices import VoiceShelf

pytestmark = pytest.mark.xdist_group("ray")

WAV = check_output("wav", 48_000)
LIMITS = {"queued": 200}


class Deployed:
    """An application with the converter, and what a test sends to it."""

    def __init__(self, config: ServeConfig, name: str) -> None:
        self.name = name
        self.spool = Spool.open(config.store_place)
        self.run_again(config)

    def run_again(self, config: ServeConfig) -> None:
        """Deploy, or redeploy with another configuration."""
        from ray import serve

        from serve_apps.app import build_converter

        self.config, self.shelf = config, VoiceShelf.open(config)
        self.conversions = ServeConversions(serve.run(build_converter(config), name=self.name, route_prefix=None))

    def order(self, seconds: float = 0.6, hz: float = 220.0, voice: str = "anna", **changes: Any) -> Order:
        key = Spool.new_key("takes")
        with self.spool.writing(key) as path:
            path.write_bytes(take_bytes(seconds, hz))
        return Order("test", self.shelf.refer(voice), key, **{"output": WAV, "pitch": PITCH, **changes})

    async def bytes(self, order: Order) -> bytes:
        return b"".join([event.data async for event in self.conversions.run(order) if isinstance(event, AudioBytes)])

    def all_bytes(self, orders: list[Order], meanwhile: Callable[[], Any] | None = None) -> list[bytes]:
        """The results of orders sent at once, while something happens."""

        async def together() -> list[bytes]:
            running = [asyncio.create_task(self.bytes(order)) for order in orders]
            if meanwhile is not None:
                await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
                await asyncio.to_thread(meanwhile)
            return await asyncio.gather(*running)

        return asyncio.run(together())


@pytest.fixture(scope="module")
def fused(ray_cluster: int, ray_home: Path) -> Iterator[Deployed]:
    from ray import serve

    yield Deployed(small_config(ray_home, limits=LIMITS, voices={"preload": ["anna"], "max_loaded": 1}), "fused")
    serve.delete("fused")


@pytest.fixture(scope="module")
def split(ray_cluster: int, ray_home: Path) -> Iterator[Deployed]:
    from ray import serve

    yield Deployed(small_config(ray_home, limits=LIMITS, placement="split"), "split")
    serve.delete("split")


@pytest.fixture(scope="module")
def direct(ray_home: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., bytes]:
    """The library's own bytes for a take and a voice."""
    folder = tmp_path_factory.mktemp("direct")
    done: dict[Any, bytes] = {}

    def convert(seconds: float = 0.6, hz: float = 220.0, voice: str = "anna", **settings: Any) -> bytes:
        key = (seconds, hz, voice, *settings.items())
        if key not in done:
            with pytest.MonkeyPatch.context() as patch:
                patch.setenv("ROCKTOP_HOME", str(ray_home))
                (folder / "take.wav").write_bytes(take_bytes(seconds, hz))
                engine = build_engine(voice, pitch=PITCH, device="cpu")
                convert_file(
                    engine.converter, folder / "take.wav", folder / "out.wav", ConvertSettings(**settings), WAV
                )
            done[key] = (folder / "out.wav").read_bytes()
        return done[key]

    return convert


@pytest.mark.parametrize("placement", ["fused", "split"])
def test_both_placements_give_the_bytes_of_the_library(
    placement: str, direct: Callable[..., bytes], request: pytest.FixtureRequest
) -> None:
    deployed: Deployed = request.getfixturevalue(placement)
    for voice, settings in (("anna", {"key": 3.0, "seed": 5}), ("berta", {"protect": 0.1}), ("anna", {})):
        target = Spool.new_key("results")
        order = deployed.order(2.0, voice=voice, settings=ConvertSettings(**settings), target=target)

        async def events(order: Order = order) -> list[Event]:
            return [event async for event in deployed.conversions.run(order)]

        told = asyncio.run(events())
        assert isinstance(told[0], Started) and isinstance(told[-1], Finished)
        assert {event.stage for event in told if isinstance(event, Advanced)} >= {"pitch", "content", "vocoder"}
        report = told[-1].report
        assert report.seconds == 2.0 and len(report.f0) == 200 and report.facts["pitch"] == PITCH
        with deployed.spool.reading(target) as path:
            assert path.read_bytes() == direct(2.0, voice=voice, **settings)
            assert report.bytes == path.stat().st_size


def test_a_lost_converter_loses_no_order(fused: Deployed, direct: Callable[..., bytes]) -> None:
    orders = [fused.order(hz=200.0 + n % 5, voice=("anna", "berta")[n % 2]) for n in range(50)]
    before = replica_pids("fused", "Converter")
    results = fused.all_bytes(orders, lambda: kill_replica("fused", "Converter"))
    assert replica_pids("fused", "Converter") != before
    for n, result in enumerate(results):
        assert result == direct(hz=200.0 + n % 5, voice=("anna", "berta")[n % 2])


def test_a_lost_stage_costs_a_call(split: Deployed, direct: Callable[..., bytes]) -> None:
    orders = [split.order(hz=200.0 + n % 5) for n in range(50)]

    def kill() -> None:
        for stage in ("ContentEncoder", "PitchExtractor", "AcousticModel", "Vocoder"):
            kill_replica("split", stage)

    results = split.all_bytes(orders, kill)
    assert [result == direct(hz=200.0 + n % 5) for n, result in enumerate(results)] == [True] * 50


def test_a_long_take_holds_up_no_short_one_and_closing_stops_the_work(fused: Deployed) -> None:
    target = Spool.new_key("results")
    order = fused.order(240.0, target=target)

    async def places() -> float:
        began = time.monotonic()
        await asyncio.gather(*(fused.bytes(fused.order()) for _ in range(8)))  # as many as there are
        return time.monotonic() - began

    async def leave() -> tuple[float, float]:
        usual = await places()
        async with aclosing(fused.conversions.run(order)) as events:
            async for event in events:
                if isinstance(event, Advanced):
                    await fused.bytes(fused.order())
                    assert not list(fused.spool.store.list(target))
                    break
        return usual, await places()

    usual, after = asyncio.run(leave())
    assert after < 5 + 3 * usual, "seconds; the long take would hold one of the places for longer"
    with pytest.raises(RocktopError), fused.spool.reading(target):
        pass


def test_errors_come_through_as_they_are(fused: Deployed, split: Deployed) -> None:
    for deployed in (fused, split):
        with pytest.raises(SettingsError, match="speakers 0 to 2") as error:
            asyncio.run(deployed.bytes(deployed.order(settings=ConvertSettings(speaker=9))))
        assert error.value.stage == "input" and type(error.value) is SettingsError
        order = Order("test", VoiceRef("gone", "gone"), deployed.order().source, WAV)
        with pytest.raises(VoiceNotFoundError):
            asyncio.run(deployed.bytes(order))


def test_a_redeploy_under_load_loses_nothing_and_a_full_queue_refuses(
    fused: Deployed, ray_home: Path, direct: Callable[..., bytes]
) -> None:
    orders = [fused.order(hz=200.0 + n % 5) for n in range(50)]
    old = fused.conversions
    config = small_config(ray_home, limits={"queued": 2}, converter={"cpus": 0.01, "concurrency": 1})

    async def during() -> list[bytes]:
        running = []
        redeploy = asyncio.create_task(asyncio.to_thread(fused.run_again, config))
        for order in orders:
            running.append(asyncio.create_task(patient(order)))
            await asyncio.sleep(0.1)
        await redeploy
        return await asyncio.gather(*running)

    async def patient(order: Order) -> bytes:
        while True:
            try:
                return b"".join([event.data async for event in old.run(order) if isinstance(event, AudioBytes)])
            except BusyError as error:
                await asyncio.sleep(error.retry_after / 4)

    for n, result in enumerate(asyncio.run(during())):
        assert result == direct(hz=200.0 + n % 5)

    async def rush() -> list[Any]:
        many = [fused.bytes(fused.order(2.0)) for _ in range(8)]
        return await asyncio.gather(*many, return_exceptions=True)

    outcomes = asyncio.run(rush())
    refused = [outcome for outcome in outcomes if isinstance(outcome, BusyError)]
    served = [outcome for outcome in outcomes if isinstance(outcome, bytes)]
    assert len(refused) + len(served) == 8 and 1 <= len(refused) <= 6
    assert all(error.http_status == 429 and error.retryable and error.retry_after > 0 for error in refused)
