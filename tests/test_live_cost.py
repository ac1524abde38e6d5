"""What a voice is said to cost: no more because others use the machine, and better known as time goes by."""

from __future__ import annotations

import asyncio
import gc
import os
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from rocktop_ray.errors import StageLostError
from serve_apps.live.compute import cost as module
from serve_apps.live.compute.cost import Costs, undisturbed
from serve_apps.live.engine import HopCost


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
    try:
        os.sched_setaffinity(0, [core])
        began = time.perf_counter()
        seconds = undisturbed(work)
        wall = time.perf_counter() - began
    finally:
        os.sched_setaffinity(0, usual)
        busy.kill()
        busy.wait()
    assert wall > 0.2
    assert seconds < 0.15 + 0.3 * (wall - 0.15)


@pytest.mark.parametrize("missing", [True, False])
def test_where_the_system_does_not_tell_the_clock_counts(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, missing: bool
) -> None:
    if not missing:
        (tmp_path / "stat").write_text("x")
    monkeypatch.setattr(module, "_SCHEDULED", tmp_path / "stat")
    assert 0.02 <= undisturbed(lambda: time.sleep(0.02)) < 2


class Measured:
    """Answers in place of ``hop_cost``, one after the other, the last one for ever."""

    def __init__(self, *fixed: float | Exception) -> None:
        self.answers, self.count = list(fixed), 0

    async def __call__(self, name: str, voice: Any, batcher: Any, *, behind: bool) -> HopCost:
        answer = self.answers[min(self.count, len(self.answers) - 1)]
        self.count += 1
        await asyncio.sleep(0)
        if isinstance(answer, Exception):
            raise answer
        return HopCost(name, answer, 0.001, 0.04)


def costs(monkeypatch: pytest.MonkeyPatch, measured: Measured, idle: Any = lambda: True) -> Costs:
    monkeypatch.setattr(module, "hop_cost", measured)
    monkeypatch.setattr(module, "_AGAIN_SECONDS", 0.02)
    return Costs(None, 0.7, idle)  # type: ignore[arg-type]  # the stand-in computes nothing


def test_what_was_measured_while_starting_is_measured_again_when_nobody_sings(monkeypatch: pytest.MonkeyPatch) -> None:
    busy, voice, measured = [True], Voice(), Measured(0.02, 0.004, 0.001)

    async def run() -> None:
        known = costs(monkeypatch, measured, lambda: not busy[0])
        assert [each.fixed for each in await asyncio.gather(*(known.of("a", voice) for _ in range(3)))] == [0.02] * 3
        await asyncio.sleep(0.07)
        assert measured.count == 1 and (await known.of("a", voice)).fixed == 0.02
        busy[0] = False
        await asyncio.sleep(0.07)
        assert (await known.of("a", voice)).fixed == 0.004
        await asyncio.sleep(0.07)
        assert measured.count == 2

    asyncio.run(run())


def test_more_than_before_is_not_believed(monkeypatch: pytest.MonkeyPatch) -> None:
    voice = Voice()

    async def run() -> None:
        known = costs(monkeypatch, Measured(0.004, 0.02))
        await known.of("a", voice)
        await asyncio.sleep(0.07)
        assert (await known.of("a", voice)).fixed == 0.004

    asyncio.run(run())


def test_what_lets_nobody_in_is_doubted(monkeypatch: pytest.MonkeyPatch) -> None:
    voice, measured = Voice(), Measured(0.05, 0.03, 0.01)

    async def run() -> None:
        known = costs(monkeypatch, measured, lambda: False)
        assert (await known.of("a", voice)).fixed == (await known.of("a", voice)).fixed == 0.05
        for fixed in (0.03, 0.01, 0.01):
            await asyncio.sleep(0.03)
            assert (await known.of("a", voice)).fixed == fixed
        assert measured.count == 3

    asyncio.run(run())


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
