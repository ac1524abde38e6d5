"""What the graph is made of, without Ray: turns, actors, stages in this process, orders in threads."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import aclosing, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from serve_cluster import PITCH, small_config, small_home, take_bytes
from stand_ins import converter, tone

from actors.arrays import own
from actors.content import ContentActor
from actors.pitch import PitchActor
from actors.threads import cores, share, use_threads_here
from actors.turns import Turns
from rocktop_ray.audio.formats import check_output
from rocktop_ray.convert import Converter
from rocktop_ray.engine import build_engine
from rocktop_ray.errors import AudioError, ModelMissingError, SettingsError
from rocktop_ray.protocols import Array
from rocktop_ray.settings import ConvertSettings
from serve_apps import replicas
from serve_apps.conversions import Leased, LocalConversions
from serve_apps.observe.meter import NoMeter
from serve_apps.orders import AudioBytes, Event, Finished, Order, VoiceRef
from serve_apps.spool import Spool
from serve_apps.stages import LocalStages, StagedConverters

WAV = check_output("wav", 48_000)
REF = VoiceRef("x@1", "x")


# turns


def test_turns_are_taken_in_order_of_arrival() -> None:
    turns, done = Turns(1), []
    gate = threading.Event()
    first = turns.submit(gate.wait)
    others = [turns.submit(lambda n=n: done.append(n)) for n in range(5)]
    others[2].cancel()
    gate.set()
    first.result(60)
    turns.submit(lambda: None).result(60)
    assert done == [0, 1, 3, 4]
    assert turns.take(lambda: "x")[0] == "x"
    with pytest.raises(ZeroDivisionError):
        turns.take(lambda: 1 // 0)
    turns.close()


def test_the_computing_thread_keeps_its_number_of_torch_threads() -> None:
    usual = torch.get_num_threads()
    turns = Turns(3)
    try:
        torch.ones(4).sum()
        assert turns.take(lambda: (torch.ones(4).sum(), torch.get_num_threads())[1])[0] == 3
    finally:
        turns.close()
        use_threads_here(usual)
    assert torch.get_num_threads() == usual


def test_replicas_share_the_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    assert share(1) == cores() >= 1 and share(10_000) == 1
    config = small_config(Path("/tmp"), placement="split", threads=None)
    monkeypatch.setattr("actors.threads.cores", lambda: 16)
    assert replicas.threads_here(config) == 4  # four stages on one machine
    assert replicas.threads_here(config.model_copy(update={"threads": 5})) == 5


def test_lent_arrays_are_copied() -> None:
    lent = np.zeros(3, np.float32)
    assert own(lent) is lent
    lent.flags.writeable = False
    assert own(lent) is not lent and own(lent).flags.writeable


# actors


def test_each_encoder_and_extractor_is_built_once() -> None:
    built: list[tuple[str, str]] = []

    class Missing:
        name, spec = "x", "spec"

    def build(name: str, *, device: str) -> Any:
        built.append((name, device))
        if name == "rmvpe":
            raise ModelMissingError("not here")
        found = Missing()
        found.name = name
        return found

    content, pitch = ContentActor("cpu", build=build), PitchActor("cpu", build=build)
    threads = [threading.Thread(target=content.spec, args=("a",)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert built == [("a", "cpu")]
    assert pitch.choose() == pitch.choose(None) == "fcpe" and pitch.choose("pm") == "pm"
    assert built[1:] == [("rmvpe", "cpu"), ("fcpe", "cpu"), ("rmvpe", "cpu"), ("pm", "cpu")]
    none = PitchActor("cpu", build=lambda name, device: build("rmvpe", device=device))
    with pytest.raises(ModelMissingError, match="rocktop models fetch"):
        none.choose()


# stages in this process


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = small_home(tmp_path_factory.mktemp("graph") / "home")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ROCKTOP_HOME", str(folder))
        yield folder


class Told(NoMeter):
    def __init__(self) -> None:
        self.stages: dict[str, float] = {}
        self.ended: list[str] = []

    def stage(self, stage: str, seconds: float, audio_seconds: float) -> None:
        assert seconds > 0
        self.stages[stage] = self.stages.get(stage, 0) + audio_seconds

    def order_ended(self, outcome: Any, seconds: float, **more: Any) -> None:
        self.ended.append(outcome)


def test_staged_conversion_gives_the_bytes_of_the_library(home: Path) -> None:
    config = small_config(home)
    shelf, voices = replicas.open_voices(config)
    told = Told()
    stages = LocalStages(ContentActor("cpu"), PitchActor("cpu"), voices, Turns(1), told)
    take = tone(1.5)
    for name in ("anna", "berta"):
        for settings in (ConvertSettings(), ConvertSettings(key=5, index_rate=1.0, seed=9)):
            ref = shelf.refer(name)
            with StagedConverters(stages).lease(ref, PITCH) as leased:
                assert voices.stats().in_use == 1
                ours = leased.converter.convert(take, settings)
            theirs = build_engine(name, pitch=PITCH, device="cpu").converter.convert(take, settings)
            assert np.array_equal(ours.audio, theirs.audio) and np.array_equal(ours.f0, theirs.f0)
    assert leased.voice["version"] == "v1" and leased.voice["sample_rate"] == 8000 and leased.voice["loaded"] == 0
    assert voices.stats().in_use == 0
    assert set(told.stages) == {"content", "pitch", "retrieval", "acoustic", "vocoder"}
    assert told.stages["vocoder"] == pytest.approx(4 * 1.5, abs=0.1)


# orders in threads


class Converters:
    """Leases a converter of stand-ins; ``during`` is called before every stage."""

    def __init__(self, during: Callable[[], None] = lambda: None) -> None:
        self.leases = self.ended = 0
        self._during = during

    @contextmanager
    def lease(self, voice: VoiceRef, pitch: str | None) -> Iterator[Leased]:
        self.leases += 1
        parts = converter()
        encode = parts.encoder.encode

        def slow(audio: Array) -> Array:
            self._during()
            return encode(audio)

        parts.encoder.encode = slow  # type: ignore[method-assign]
        try:
            yield Leased(Converter(parts.encoder, parts.extractor, parts.voice), {})
        finally:
            self.ended += 1


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    return Spool.open(str(tmp_path / "spool"))


def order(spool: Spool, seconds: float = 0.5, **changes: Any) -> Order:
    key = Spool.new_key("takes")
    with spool.writing(key) as path:
        path.write_bytes(take_bytes(seconds))
    return Order("test", REF, key, WAV, **changes)


def wait_for(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_leaving_stops_what_runs_and_drops_what_waits(spool: Spool) -> None:
    entered, gate, told = threading.Event(), threading.Event(), Told()

    def during() -> None:
        entered.set()
        gate.wait(60)

    converters = Converters(during)
    conversions = LocalConversions(converters, spool, 1, told)

    async def leave() -> None:
        async def listen(one: Order) -> None:
            async for _ in conversions.run(one):
                pass

        running = asyncio.create_task(listen(order(spool, target="results/a")))
        waiting = asyncio.create_task(listen(order(spool, target="results/b")))
        await asyncio.to_thread(entered.wait, 60)
        for task in (running, waiting):
            task.cancel()
        await asyncio.gather(running, waiting, return_exceptions=True)
        gate.set()
        await asyncio.to_thread(wait_for, lambda: converters.ended == 1)
        async with aclosing(conversions.run(order(spool))) as events:  # the place is free again
            assert isinstance([event async for event in events][-1], Finished)

    asyncio.run(leave())
    assert converters.leases == 2 and told.ended == ["cancelled", "done"]
    assert not list(spool.store.list("results/"))


def test_a_slow_listener_holds_the_work_up_not_the_memory(
    spool: Spool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("serve_apps.conversions._PIECES", 2)
    sent: list[int] = []

    def convert_stream(*args: Any, **options: Any) -> Any:
        for n in range(20):
            args[2](bytes([n]))
            sent.append(n)
        raise AudioError("enough")

    monkeypatch.setattr("serve_apps.conversions.convert_stream", convert_stream)

    async def listen() -> bytes:
        data = b""
        async with aclosing(LocalConversions(Converters(), spool).run(order(spool))) as events:
            async for event in events:
                if isinstance(event, AudioBytes):
                    await asyncio.sleep(0.01)
                    data += event.data
                    assert len(sent) <= len(data) + 3
                    if len(data) == 10:
                        return data
        raise AssertionError

    assert asyncio.run(listen()) == bytes(range(10))


def test_errors_reach_the_listener(spool: Spool) -> None:
    async def listen(one: Order) -> list[Event]:
        return [event async for event in LocalConversions(Converters(), spool).run(one)]

    with pytest.raises(SettingsError, match="speakers 0 to 2"):
        asyncio.run(listen(order(spool, settings=ConvertSettings(speaker=5))))
    with pytest.raises(AudioError):
        asyncio.run(listen(order(spool, 0.01)))
