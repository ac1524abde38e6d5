"""What a voice is said to cost: no more because others use the machine, and better known as time goes by."""

from __future__ import annotations

import asyncio
import gc
import os
import subprocess
import sys
import time
from concurrent.futures import Future
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from live_voices import TinyVoices

from rocktop_ray.errors import StageLostError
from serve_apps.live.compute import cost as module
from serve_apps.live.compute.cost import Costs, hop_cost, undisturbed
from serve_apps.live.engine import HopCost
from serve_apps.orders import VoiceRef


class Voice(SimpleNamespace):
    """Stands for a voice; only its identity counts."""


@pytest.mark.skipif(not Path("/proc/thread-self/schedstat").exists(), reason="only Linux tells of waiting threads")
def test_time_that_others_had_the_processor_does_not_count() -> None:
    """Beside a process on the same core half of the time is somebody else's."""

    def work() -> None:
        until = time.thread_time() + 0.15
        while time.thread_time() < until:
            pass

    usual = os.sched_getaffinity(0)
    core = min(usual)
    busy = subprocess.Popen(
        [sys.executable, "-c", f"import os; os.sched_setaffinity(0, [{core}]); print(flush=True)\nwhile 1: pass"],
        stdout=subprocess.PIPE,
    )
    assert busy.stdout is not None
    busy.stdout.readline()
    told = []
    try:
        os.sched_setaffinity(0, [core])
        for _ in range(5):  # a machine that stands still is no waiting for a processor
            began = time.perf_counter()
            seconds = undisturbed(work)
            wall = time.perf_counter() - began
            assert wall > 0.2
            told.append((seconds, wall))
            if seconds < 0.15 + 0.3 * (wall - 0.15):
                break
        else:
            pytest.fail(f"(seconds, wall): {told}")
    finally:
        os.sched_setaffinity(0, usual)
        busy.kill()
        busy.wait()


@pytest.mark.parametrize("missing", [True, False])
def test_where_the_system_does_not_tell_the_clock_counts(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, missing: bool
) -> None:
    if not missing:
        (tmp_path / "stat").write_text("x")
    monkeypatch.setattr(module, "_SCHEDULED", tmp_path / "stat")
    assert 0.02 <= undisturbed(lambda: time.sleep(0.02)) < 60


class Measured:
    """Answers in place of ``hop_cost``, one after the other, the last one for ever."""

    def __init__(self, *fixed: float | Exception) -> None:
        self.answers, self.count, self.brief = list(fixed), 0, False

    async def __call__(self, name: str, voice: Any, batcher: Any, *, behind: bool, busy: Any) -> tuple[HopCost, bool]:
        answer = self.answers[min(self.count, len(self.answers) - 1)]
        self.count += 1
        await asyncio.sleep(0)
        if isinstance(answer, Exception):
            raise answer
        return HopCost(name, answer, 0.001, 0.04), not (self.brief and busy())


def costs(monkeypatch: pytest.MonkeyPatch, measured: Measured, idle: Any = lambda: True) -> Costs:
    monkeypatch.setattr(module, "hop_cost", measured)
    monkeypatch.setattr(module, "_AGAIN_SECONDS", 0.02)
    return Costs(None, 0.7, idle)  # type: ignore[arg-type]  # the stand-in computes nothing


async def until(known: Costs, voice: Voice, fixed: float) -> None:
    async with asyncio.timeout(60):
        while (await known.of("a", voice)).fixed != fixed:
            await asyncio.sleep(0.01)


def test_what_was_measured_while_starting_is_measured_again_when_nobody_sings(monkeypatch: pytest.MonkeyPatch) -> None:
    busy, voice, measured = [True], Voice(), Measured(0.02, 0.004, 0.001)

    async def run() -> None:
        known = costs(monkeypatch, measured, lambda: not busy[0])
        assert [each.fixed for each in await asyncio.gather(*(known.of("a", voice) for _ in range(3)))] == [0.02] * 3
        await asyncio.sleep(0.07)
        assert measured.count == 1 and (await known.of("a", voice)).fixed == 0.02
        busy[0] = False
        await until(known, voice, 0.004)
        await asyncio.sleep(0.07)
        assert measured.count == 2

    asyncio.run(run())


def test_more_than_before_is_not_believed(monkeypatch: pytest.MonkeyPatch) -> None:
    voice, measured = Voice(), Measured(0.004, 0.02)

    async def run() -> None:
        known = costs(monkeypatch, measured)
        await known.of("a", voice)
        while measured.count < 2:
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.07)
        assert (await known.of("a", voice)).fixed == 0.004

    asyncio.run(run())


def test_what_lets_nobody_in_is_doubted_when_nobody_sings(monkeypatch: pytest.MonkeyPatch) -> None:
    voice, measured, idle = Voice(), Measured(0.05, 0.03, 0.01), [False]

    async def run() -> None:
        known = costs(monkeypatch, measured, lambda: idle[0])
        for _ in range(5):
            assert (await known.of("a", voice)).fixed == 0.05
            await asyncio.sleep(0.02)
        assert measured.count == 1, "whoever sings would wait for it"
        idle[0] = True
        await until(known, voice, 0.01)
        await asyncio.sleep(0.07)
        assert (await known.of("a", voice)).fixed == 0.01

    asyncio.run(run())


def test_after_long_it_is_doubted_in_any_case(monkeypatch: pytest.MonkeyPatch) -> None:
    voice, measured = Voice(), Measured(0.05, 0.01)

    async def run() -> None:
        monkeypatch.setattr(module, "_DOUBT_SECONDS", 0.02)
        known = costs(monkeypatch, measured, lambda: False)
        await until(known, voice, 0.01)

    asyncio.run(run())


def test_what_was_measured_in_brief_gives_way_to_what_was_not(monkeypatch: pytest.MonkeyPatch) -> None:
    """Though that be more; and it is measured until nobody comes in between."""
    voice, measured, idle = Voice(), Measured(0.004, 0.005, 0.006), [False]
    measured.brief = True

    async def run() -> None:
        known = costs(monkeypatch, measured, lambda: idle[0])
        assert (await known.of("a", voice)).fixed == 0.004
        idle[0] = True
        await until(known, voice, 0.005)
        await asyncio.sleep(0.07)
        assert measured.count == 2

    asyncio.run(run())


class Computing:
    """A thread that computes at once; each hop takes ``seconds`` for one stream, and half as much for each other."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
        self.hops: list[int] = []
        """Streams of each."""
        self._seconds = seconds
        monkeypatch.setattr(module, "feed_many", lambda streams, _: self.hops.append(len(streams)))
        monkeypatch.setattr(module, "moved_formants", lambda *_: None)
        monkeypatch.setattr(module, "undisturbed", self._taken)
        monkeypatch.setattr(module, "_PAUSE", 0.0)

    def call(self, work: Any) -> Any:
        future: Future[Any] = Future()
        future.set_result(work())
        return future

    def _taken(self, work: Any) -> float:
        before = len(self.hops)
        work()
        return self._seconds * (1 + self.hops[-1]) / 2 if len(self.hops) > before else 0.002


def hops_of(monkeypatch: pytest.MonkeyPatch, seconds: float, busy: bool) -> tuple[HopCost, bool, list[int]]:
    """The cost of a voice of 40 ms a hop, whether it was measured in full, and the hops that were computed for it."""
    computing, voice = Computing(monkeypatch, seconds), TinyVoices().open(VoiceRef("anna", "anna"))
    cost, whole = asyncio.run(hop_cost("a", voice, computing, busy=lambda: busy))  # type: ignore[arg-type]
    return cost, whole, computing.hops


def test_those_who_sing_wait_for_few_hops_of_a_voice_that_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    cost, whole, hops = hops_of(monkeypatch, 0.2, True)
    assert cost.each == pytest.approx(0.2) and not whole and hops == [1], "one that nobody can be let in with"
    cost, whole, hops = hops_of(monkeypatch, 0.04, True)
    assert cost.each == pytest.approx(0.04) and not whole and len(hops) <= 4 and set(hops) == {1}
    cost, whole, hops = hops_of(monkeypatch, 0.006, True)
    assert whole and len(hops) == 14 and (cost.fixed, cost.each) == pytest.approx((0.003, 0.003)), "as if nobody sang"


def test_where_nobody_sings_voices_are_measured_in_full(monkeypatch: pytest.MonkeyPatch) -> None:
    cost, whole, hops = hops_of(monkeypatch, 0.2, False)
    assert cost.each == pytest.approx(0.2) and whole and hops == [1] * 7
    cost, whole, hops = hops_of(monkeypatch, 0.01, False)
    assert whole and len(hops) == 14 and cost.formant == pytest.approx(0.002)


def test_a_measurement_that_fails_is_made_again(monkeypatch: pytest.MonkeyPatch) -> None:
    voice = Voice()

    async def run() -> None:
        known = costs(monkeypatch, Measured(StageLostError("gone"), 0.004, StageLostError("gone")))
        with pytest.raises(StageLostError):
            await known.of("a", voice)
        assert (await known.of("a", voice)).fixed == 0.004
        await asyncio.sleep(0.07)
        assert (await known.of("a", voice)).fixed == 0.004

    asyncio.run(run())


def test_a_voice_that_was_given_up_is_not_held_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    measured = Measured(0.004)

    async def run() -> None:
        known = costs(monkeypatch, measured)
        await known.of("a", Voice())
        gc.collect()
        await asyncio.sleep(0.07)
        assert measured.count == 1
        known.close()

    asyncio.run(run())
