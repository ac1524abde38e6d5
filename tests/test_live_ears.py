"""Ears in another process: what is heard is the same to the bit, and nothing is lost with whoever heard it."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from live_voices import LAYOUT, RATE, cut, take, tiny_converter
from stand_ins import LevelEncoder, LoudPitch

from actors.content import ContentActor
from actors.ears import EarsActor
from actors.pitch import PitchActor
from rocktop_ray.errors import ModelMissingError, RocktopError, SettingsError, StageLostError, StreamStateError
from rocktop_ray.live.converter import LiveConverter
from rocktop_ray.live.ears import ListenerEars
from rocktop_ray.live.far_ears import EarsFacts, EarsPlan, FarEars, Hear, Heard, hear
from rocktop_ray.live.parts import LiveParts
from rocktop_ray.live.state import pack
from rocktop_ray.live.stream import LiveStream, feed_many
from rocktop_ray.models.listener.network import ListenerConfig, ListenerNet
from rocktop_ray.models.listener.stream import ListenerStream
from rocktop_ray.protocols import Array
from rocktop_ray.settings import ConvertSettings
from serve_apps.live.transport.door import Address, Door
from serve_apps.live.transport.ears_lines import Call, EarsLines
from serve_apps.live.transport.frames import lost

PLAN = EarsPlan("level", True, "loudest", LAYOUT)
BLOCK = 1764


def small_actor() -> EarsActor:
    def encoder(name: str, device: str) -> Any:
        if name != "level":
            raise ModelMissingError(f"no encoder {name}", stage="content")
        return LevelEncoder()

    content = ContentActor("cpu", build=encoder)
    return EarsActor(content, PitchActor("cpu", build=lambda name, device: LoudPitch()), lambda: ListenerStream(_net()))


def _net() -> ListenerNet:
    return ListenerNet(ListenerConfig())


class Near:
    """An ``EarsElsewhere`` that is not elsewhere."""

    def __init__(self, actor: EarsActor) -> None:
        self._actor = actor

    def open(self, plan: EarsPlan) -> EarsFacts:
        return self._actor.open(plan)

    def hear(self, call: Hear, patience: float = 1.0) -> Heard:
        return self._actor.hear(call)


def split_converter(name: str, elsewhere: Any) -> LiveConverter:
    whole = tiny_converter(name)
    ears = FarEars(PLAN, elsewhere.open(PLAN), lambda call: elsewhere.hear(call, 0.5))
    return LiveConverter(LiveParts(whole.parts.voice, elsewhere=ears), whole.layout, name=name)


def fed(converter: LiveConverter, takes: list[list[Array]]) -> list[Array]:
    """Several streams at once, with settings that change."""
    streams = [LiveStream(converter, rate=RATE) for _ in takes]
    waves = []
    for n, blocks in enumerate(zip(*takes, strict=True)):
        streams[0].change(ConvertSettings(key=float(n // 5), median_radius=3))
        waves.append(feed_many(streams, blocks))
    return [np.concatenate(wave) for wave in zip(*waves, strict=True)]


def test_far_ears_are_the_same_to_the_bit() -> None:
    takes = [cut(take(1.0, seed), BLOCK) for seed in (1, 2, 3)]
    whole, split = tiny_converter("anna"), split_converter("anna", Near(small_actor()))
    assert (split.delay, split.exact, split.parts_exact) == (whole.delay, whole.exact, whole.parts_exact)
    for here, there in zip(fed(whole, takes), fed(split, takes), strict=True):
        assert np.array_equal(here, there) and np.abs(here).max() > 0.01
    states = [LiveStream(each, rate=RATE) for each in (whole, split)]
    for stream in states:
        stream.feed(takes[0][0])
    assert states[0].state() == states[1].state()


def test_a_far_listener_is_the_same_to_the_bit() -> None:
    ears = ListenerEars(ListenerStream(_net()))
    facts = EarsFacts.of(ears)
    far = FarEars(EarsPlan(), facts, lambda call: hear(ears, facts.fresh, call))
    assert (far.lag, far.needs, far.warming) == (ears.lag, ears.needs, ears.warming)
    assert far.parts_exact == ears.parts_exact
    assert far.same == FarEars(EarsPlan(), facts, lambda call: hear(ears, facts.fresh, call)).same
    generator, settings = np.random.default_rng(0), [ConvertSettings(), ConvertSettings(key=3)]
    here, there = [ears.begin()] * 2, [far.begin()] * 2
    for _ in range(4):
        audio = generator.uniform(-0.3, 0.3, (2, 640)).astype(np.float32)
        here, units, melodies = ears.step(here, audio, settings)
        there, far_units, far_melodies = far.step(there, audio, settings)
        assert all(np.array_equal(*each) for each in zip(units, far_units, strict=True))
        assert all(np.array_equal(a.f0, b.f0) for a, b in zip(melodies, far_melodies, strict=True))
        assert [pack(state) for state in here] == [pack(state) for state in there]


def test_what_cannot_be_heard_is_refused() -> None:
    actor = small_actor()
    with pytest.raises(ModelMissingError):
        actor.open(replace(PLAN, encoder="other"))
    with pytest.raises(SettingsError):
        actor.open(replace(PLAN, layout=None))
    facts = actor.open(PLAN)
    call = Hear(PLAN, (pack(facts.fresh)[:-1],), np.zeros((1, facts.needs + 640), np.float32), (ConvertSettings(),))
    with pytest.raises(StreamStateError):
        actor.hear(call)
    assert actor.ready(PLAN) and not actor.ready(EarsPlan())


class House:
    """Side doors of several ears, on an event loop of another thread."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self._thread.start()
        self.doors: dict[str, tuple[Door, Address]] = {}
        self.calls: list[str] = []
        self.hung: set[str] = set()
        self.told: list[tuple[float, int]] = []

    def add(self, name: str) -> None:
        actor = small_actor()

        async def answer(call: Call) -> Any:
            self.calls.append(name)
            while name in self.hung and call[0] == "hear":
                await asyncio.sleep(0.005)
            return getattr(actor, call[0])(*call[1])

        async def opened() -> tuple[Door, Address]:
            door = Door(name, answer)
            return door, await door.open("127.0.0.1")

        self.doors[name] = self.do(opened())

    def kill(self, name: str) -> None:
        self.do(self.doors.pop(name)[0].leave(0.0))

    def do(self, work: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(60)

    def lines(self, **options: Any) -> EarsLines:
        def over_serve(call: Call, seconds: float) -> Any:
            raise lost("nobody")

        def told(seconds: float, asked: int) -> None:
            self.told.append((seconds, asked))

        return EarsLines(lambda: [address for _, address in self.doors.values()], over_serve, told, **options)

    def close(self) -> None:
        for name in list(self.doors):
            self.kill(name)
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(60)
        self.loop.close()


@pytest.fixture
def house() -> Iterator[House]:
    made = House()
    yield made
    made.close()


def until(true: Callable[[], bool], seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end
        time.sleep(0.01)


@pytest.fixture
def lines(house: House, monkeypatch: pytest.MonkeyPatch) -> Iterator[EarsLines]:
    """To the ears a and b, which both are ready. Nobody is given up because the machine stands still."""
    for name in ("_MOST_SECONDS", "_SILENT_SECONDS", "_CONNECT_SECONDS", "_SEND_SECONDS"):
        monkeypatch.setattr(f"serve_apps.live.transport.ears_lines.{name}", 60.0)
    house.add("a")
    house.add("b")
    made = house.lines()
    made.open(PLAN)
    until(lambda: house.calls.count("a") == house.calls.count("b") == 1)
    until(lambda: len(made._ready) == 2)
    house.calls.clear()
    yield made
    made.close()


def a_call(lines: EarsLines, seed: int = 0) -> tuple[Hear, Heard]:
    facts = lines.open(PLAN)
    audio = np.random.default_rng(seed).uniform(-0.3, 0.3, (1, facts.needs + LAYOUT.hop * 160)).astype(np.float32)
    call = Hear(PLAN, (pack(facts.fresh),), audio, (ConvertSettings(),))
    return call, small_actor().hear(call)


def same(one: Heard, other: Heard) -> bool:
    return one.states == other.states and np.array_equal(one.units[0], other.units[0])


def test_a_stream_over_side_doors_survives_who_hears_for_it(house: House, lines: EarsLines) -> None:
    blocks = cut(take(1.2), BLOCK)
    stream = LiveStream(split_converter("anna", lines), rate=RATE)
    waves = []
    for n, block in enumerate(blocks):
        if n == 10:
            house.kill("a")
        waves.append(stream.feed(block))
    expected = LiveStream(tiny_converter("anna"), rate=RATE)
    assert np.array_equal(np.concatenate(waves), np.concatenate([expected.feed(block) for block in blocks]))
    assert {"a", "b"} <= set(house.calls)


def test_who_is_silent_costs_its_patience_once(house: House, lines: EarsLines) -> None:
    call, expected = a_call(lines)
    house.told.clear()
    house.hung.add("a")
    assert same(lines.hear(call, 0.1), expected) and house.told[-1][1] == 2 and 0.1 <= house.told[-1][0] < 30
    house.calls.clear()
    assert same(lines.hear(call, 60.0), expected) and house.told[-1][1] == 1 and house.calls == ["b"]
    # Its late answer shows that it is back, and is not taken for that of another call.
    house.hung.clear()
    other, heard = a_call(lines, 1)
    house.calls.clear()

    def asked_again() -> bool:
        assert same(lines.hear(other, 0.1), heard)
        return "a" in house.calls

    until(asked_again)


def test_who_leaves_is_not_asked_and_not_waited_for(house: House, lines: EarsLines) -> None:
    door, _ = house.doors.pop("a")
    leaving = asyncio.run_coroutine_threadsafe(door.leave(30.0), house.loop)
    leaving.result(60)  # the watch hangs up long before
    call, expected = a_call(lines)
    assert same(lines.hear(call, 60.0), expected) and set(house.calls) == {"b"}


def test_new_ones_are_found_and_all_lost_is_told(house: House, lines: EarsLines) -> None:
    call, expected = a_call(lines)
    house.kill("a")
    house.kill("b")
    began = time.monotonic()
    with pytest.raises(StageLostError) as error:
        lines.hear(call, 60.0)
    assert error.value.retryable and time.monotonic() - began < 30
    house.add("c")

    def heard() -> bool:
        try:
            return same(lines.hear(call, 0.1), expected)
        except StageLostError:
            time.sleep(0.02)
            return False

    until(heard)
    assert "c" in house.calls


def test_refusals_come_through(house: House, lines: EarsLines) -> None:
    with pytest.raises(ModelMissingError):
        lines.open(replace(PLAN, encoder="other"))
    call, _ = a_call(lines)
    with pytest.raises(StreamStateError):
        lines.hear(replace(call, states=(b"junk",)), 1.0)


def test_without_side_doors_calls_go_over_serve() -> None:
    actor = small_actor()

    def over_serve(call: Call, seconds: float) -> Any:
        return getattr(actor, call[0])(*call[1])

    lines = EarsLines(lambda: None, over_serve)
    call, expected = a_call(lines)
    assert same(lines.hear(call, 0.1), expected)
    lines.close()

    def dead(call: Call, seconds: float) -> Any:
        raise RocktopError("no")

    with pytest.raises(RocktopError):
        EarsLines(lambda: None, dead).open(PLAN)
