"""Chunks given out as they are made; pitch and content side by side: the same bytes, few units ahead, nothing left."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from stand_ins import LevelEncoder, LevelPitch, LevelVoice, converter, tone

from rocktop_ray.beside import AHEAD
from rocktop_ray.convert import Converter, joined
from rocktop_ray.errors import AudioError, CancelledError
from rocktop_ray.protocols import Array
from rocktop_ray.settings import ConvertSettings


class WatchedEncoder(LevelEncoder):
    def __init__(self, before: Callable[[], None] = lambda: None) -> None:
        self.before, self.begun, self.ended = before, 0, 0

    def encode(self, audio: Array) -> Array:
        self.begun += 1
        self.before()
        units = super().encode(audio)
        self.ended += 1
        return units


class WatchedPitch(LevelPitch):
    def __init__(self, before: Callable[[], None] = lambda: None) -> None:
        self.before = before

    def f0(self, audio: Array) -> Array:
        self.before()
        return super().f0(audio)


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(2) as pool:
        yield pool


def song(seconds: float) -> Array:
    take = tone(seconds)
    return take * np.abs(np.sin(np.arange(len(take)) / 40_000)).astype(np.float32)


def fail(*_: object) -> None:
    raise AudioError("out of order")


@pytest.mark.parametrize(("rate", "seconds"), [(48_000, 0.05), (48_000, 130.0), (32_000, 340.0)])
def test_side_by_side_gives_the_same(pool: ThreadPoolExecutor, rate: int, seconds: float) -> None:
    settings = ConvertSettings(seed=5, key=3, autotune=0.5)
    one = converter(rate).convert(song(seconds), settings)
    two = Converter(LevelEncoder(), LevelPitch(), LevelVoice(rate), executor=pool).convert(song(seconds), settings)
    assert one.audio.tobytes() == two.audio.tobytes() and one.key == two.key
    assert np.array_equal(one.f0, two.f0) and np.array_equal(one.f0_source, two.f0_source)
    assert one.seconds.keys() == two.seconds.keys()


def test_a_take_is_given_out_chunk_by_chunk() -> None:
    encoder = WatchedEncoder()
    parts, begun = [], []
    for part in Converter(encoder, LevelPitch(), LevelVoice()).stream([song(130.0)]):
        parts.append(part)
        begun.append(encoder.begun)
    assert begun == [1, 2, 3, 4]
    assert all(25 < len(part.audio) / 48_000 < 51 for part in parts[:-1])
    assert all("pitch" not in part.seconds and part.seconds["vocoder"] > 0 for part in parts[1:])
    whole = converter().convert(song(130.0))
    assert joined(parts).audio.tobytes() == whole.audio.tobytes()
    assert np.array_equal(joined(parts).f0, whole.f0) and len(whole.f0) == 13_000


def test_pitch_and_content_are_made_at_the_same_time(pool: ThreadPoolExecutor) -> None:
    """Each waits for the other to have begun: one after the other would break the barrier."""
    meeting = threading.Barrier(2)

    def meet() -> None:
        meeting.wait(60)

    Converter(WatchedEncoder(meet), WatchedPitch(meet), LevelVoice(), executor=pool).convert(song(1.0))


def test_few_units_are_made_ahead(pool: ThreadPoolExecutor) -> None:
    encoder, waves = WatchedEncoder(), 0

    class Voice(LevelVoice):
        def wave(self, *args: object, **options: object) -> Array:
            nonlocal waves
            waves += 1
            time.sleep(0.02)
            assert encoder.begun <= waves + AHEAD
            return super().wave(*args, **options)  # type: ignore[arg-type]

    Converter(encoder, LevelPitch(), Voice(), executor=pool).convert(song(200.0))
    assert waves == encoder.ended == 6


def test_seconds_are_those_of_the_work(pool: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch) -> None:
    """By a clock of each thread's own, which only work moves on."""

    class Clock(threading.local):
        now = 0.0

    clock = Clock()

    def work() -> None:
        clock.now += 0.1

    for module in ("beside", "progress"):
        monkeypatch.setattr(f"rocktop_ray.{module}.time", SimpleNamespace(perf_counter=lambda: clock.now))
    done = Converter(WatchedEncoder(work), WatchedPitch(work), LevelVoice(), executor=pool).convert(song(50.0))
    assert done.seconds["pitch"] == pytest.approx(0.1) and done.seconds["content"] == pytest.approx(0.2)


@pytest.mark.parametrize("executor", [False, True])
def test_errors_arrive_and_nothing_runs_on(pool: ThreadPoolExecutor, executor: bool) -> None:
    encoder = WatchedEncoder(lambda: time.sleep(0.1))
    chosen = pool if executor else None
    with pytest.raises(AudioError, match="out of order"):
        Converter(encoder, WatchedPitch(fail), LevelVoice(), executor=chosen).convert(song(100.0))
    assert encoder.begun == encoder.ended
    with pytest.raises(AudioError, match="out of order"):
        Converter(WatchedEncoder(fail), LevelPitch(), LevelVoice(), executor=chosen).convert(song(1.0))


def test_cancelled_or_closed_it_begins_nothing_more(pool: ThreadPoolExecutor) -> None:
    cancel = threading.Event()
    encoder = WatchedEncoder(lambda: time.sleep(0.01))
    parts = Converter(encoder, LevelPitch(), LevelVoice(), executor=pool)
    with pytest.raises(CancelledError):
        for _ in parts.stream([song(200.0)], cancel=cancel):
            cancel.set()
    assert encoder.begun == encoder.ended <= 2 + AHEAD
    encoder.begun = encoder.ended = 0
    stream = parts.stream([song(200.0)])
    next(stream)
    stream.close()  # type: ignore[attr-defined]
    assert encoder.begun == encoder.ended <= 2 + AHEAD


def test_stages_see_the_callers_number_of_torch_threads(pool: ThreadPoolExecutor) -> None:
    """Also in threads that began with another number, or are new."""
    usual, seen = torch.get_num_threads(), list[int]()

    def look() -> None:
        torch.ones(2) + 1
        seen.append(torch.get_num_threads())
        time.sleep(0.01)

    try:
        for number in (1, 2, 1, 3):
            torch.set_num_threads(number)
            seen.clear()
            Converter(WatchedEncoder(look), WatchedPitch(look), LevelVoice(), executor=pool).convert(song(50.0))
            assert seen == [number] * 3 and torch.get_num_threads() == number
    finally:
        torch.set_num_threads(usual)
