"""The statistics of benchmarks/live: what is measured wrongly proves nothing."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.live.claims import cost_of_kills, growth_of_each, missed
from benchmarks.live.figures import (
    click_lags,
    growth_per_second,
    linear_cost,
    missed_per_hour,
    rise,
    sessions_that_fit,
    sound_lag,
    spread,
    underruns,
    wave_lag,
)
from benchmarks.live.machine import Process, cpu_by_role, family
from benchmarks.live.probe import blocks_of
from benchmarks.live.soak import SLOWEST, next_speed
from benchmarks.live.takes import clicks

RATE = 16_000


def _singing(seconds: float, seed: int = 0, hz: float = 220.0) -> np.ndarray:
    """Notes of changing loudness: enough for both ways of comparing."""
    random = np.random.default_rng(seed)
    time = np.arange(round(seconds * RATE)) / RATE
    loud = np.repeat(random.uniform(0.05, 1, round(seconds * 8) + 1), RATE // 8)[: len(time)]
    tone = sum(np.sin(2 * np.pi * hz * k * time + random.uniform(0, 6)) / k for k in range(1, 8))
    return (0.1 * loud * tone).astype(np.float32)


def test_percentiles_leave_out_what_never_came() -> None:
    found = spread([0.01] * 98 + [0.5, 1.0, math.nan])
    assert (found.p50, found.max, found.count) == (0.01, 1.0, 100)
    assert found.p95 == pytest.approx(0.01)
    assert 0.5 <= found.p99 <= 1.0
    assert math.isnan(spread([]).p50)


def test_missed_blocks_are_counted_per_hour_of_stream_and_lost_ones_are_missed() -> None:
    answers = [0.01] * 97 + [0.05, 0.07, math.nan]
    assert missed_per_hour(answers, 0.04, 0.04) == pytest.approx(3 * 3600 / 4)
    assert missed_per_hour(answers, 0.06, 0.04) == pytest.approx(2 * 3600 / 4)


def test_a_player_runs_dry_once_for_each_block_that_comes_too_late_for_it() -> None:
    steady = [0.04 * n for n in range(50)]
    assert underruns(steady, 0.04, 0.0) == 0
    hiccup = [at + (0.03 if n == 20 else 0) for n, at in enumerate(steady)]
    assert underruns(hiccup, 0.04, 0.02) == 1
    assert underruns(hiccup, 0.04, 0.031) == 0
    held_up = [at + (0.1 if n >= 20 else 0) for n, at in enumerate(steady)]
    assert underruns(held_up, 0.04, 0.02) == 1
    slower = [0.041 * n for n in range(50)]
    assert underruns(slower, 0.04, 0.02) == 2
    lost = [*steady[:10], math.nan, *steady[11:]]
    assert underruns(lost, 0.04, 0.02) == 1


def test_blocks_are_put_down_to_the_kill_before_them() -> None:
    crowd = {"drifters": [{"flagged": [(5.0, 2, 7), (101.0, 4, 90), (101.1, 4, 91), (102.0, 4, 99)]}, {"flagged": []}]}
    assert cost_of_kills(crowd, [100.0, 200.0]) == [2, 0, 0, 0]
    assert [missed(flagged) for flagged in ([], [5], [5, 6], [5, 6, 7], [5, 6, 8])] == [0, 1, 1, 2, 2]


def test_a_crowd_is_slowed_down_where_the_machine_is_busy() -> None:
    speed = 1.5
    for _ in range(100):
        speed = next_speed(speed, 0.9)
    assert speed == SLOWEST > 1
    for _ in range(100):
        speed = next_speed(speed, 0.3 * speed)
    assert 0.5 < 0.3 * speed < 1


@settings(max_examples=20, deadline=None)
@given(st.floats(0.0, 20.0), st.floats(0.01, 10.0))
def test_linear_cost_finds_what_made_the_times(fixed: float, each: float) -> None:
    sessions = [1, 2, 4, 8]
    found = linear_cost(sessions, [fixed + each * n for n in sessions])
    assert found == pytest.approx((fixed, each), abs=1e-6)
    fits = sessions_that_fit(fixed, each, 40.0, 0.7)
    assert fixed + each * fits <= 28.0 + 1e-6 or fits == 0
    assert fixed + each * (fits + 1) > 28.0


def test_linear_cost_has_no_negative_parts() -> None:
    fixed, each = linear_cost([1, 2, 4], [1.0, 3.0, 7.0])
    assert fixed == 0
    assert each == pytest.approx((1 + 6 + 28) / 21)


def test_growth_is_one_slope_over_processes_of_different_levels() -> None:
    first = [(float(t), 500 + 200 * (t < 10) + 0.5 * t) for t in range(60)]
    second = [(100.0 + t, 900 + 0.5 * t) for t in range(60)]
    assert growth_per_second([first, second], settled=10) == pytest.approx(0.5)
    assert growth_per_second([first, second], settled=0) < 0.5
    assert growth_per_second([[], first[:2]], settled=0) == 0


def test_a_replicas_growth_is_its_own() -> None:
    """Whatever it needs to load, and however many others come and go."""
    lives = {
        n: [(100.0 * n + t, min(t, 12.0) * 45 + grows * max(0.0, t - 15)) for t in np.arange(0.0, length, 2.0)]
        for n, (length, grows) in enumerate([(61, 0.0), (121, 0.5), (31, 9.0), (0, 0.0)])
    }
    seen = SimpleNamespace(memory={"Live": lives})
    assert growth_of_each(seen, "Live") == [(0.0, 45.0), (pytest.approx(0.5 * 105 * 0.8, rel=0.05), 105.0)]
    assert growth_of_each(seen, "Gateway") == []
    peak = [(float(t), 500.0 + 300 * (t == 50)) for t in range(100)]
    assert rise(peak, 15) == 0
    assert math.isnan(rise(peak[:20], 15)) and math.isnan(rise([], 15))


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 4000), st.integers(0, 5))
def test_wave_lag_is_exact(lag: int, seed: int) -> None:
    take = _singing(1.5, seed) + np.random.default_rng(seed).normal(0, 0.01, round(1.5 * RATE)).astype(np.float32)
    heard = np.concatenate([np.zeros(lag, np.float32), take])[: len(take)]
    found, alike = wave_lag(take, heard, 5000)
    assert found == lag
    assert alike > 0.999


def test_sound_lag_holds_for_another_rendering() -> None:
    """Other pitch and phases, the same loudness over time: the waves are unlike, the sounds are not."""
    take, other = _singing(4, 3), _singing(4, 3, hz=331.0)
    lag = round(0.103 * RATE)
    heard = np.concatenate([np.zeros(lag, np.float32), other])[: len(take)]
    assert wave_lag(take, heard, 8000)[1] < 0.5
    seconds, alike = sound_lag(take, heard, RATE, 0.4)
    assert seconds == pytest.approx(0.103, abs=0.002)
    assert alike > 0.5


@pytest.mark.parametrize("delay", [0, 777, 5000])
def test_clicks_are_found_where_they_came_out(delay: int) -> None:
    sent = clicks(4.0, RATE)
    assert len(sent.positions) > 8
    heard = np.concatenate([np.zeros(delay + 3, np.float32), sent.wave])
    heard[sent.positions[2] + delay : sent.positions[2] + delay + 200] = 0
    expected = [3] * len(sent.positions)
    expected[2] = None
    assert click_lags(sent.positions, sent.pulse, heard, delay, 400) == [
        each if each is None else each + delay for each in expected
    ]


def test_blocks_go_over_the_take_again() -> None:
    blocks = blocks_of(np.arange(10), 4)
    assert [next(blocks).tolist() for _ in range(3)] == [[0, 1, 2, 3], [4, 5, 6, 7], [0, 1, 2, 3]]


def test_cpu_of_a_family() -> None:
    def process(pid: int, parent: int, cpu: float) -> Process:
        return Process(pid, f"p{pid}", parent, 0, cpu, 1.0)

    before = {each.pid: each for each in (process(1, 0, 5.0), process(2, 1, 1.0), process(9, 0, 3.0))}
    after = {
        each.pid: each for each in (process(1, 0, 6.0), process(2, 1, 4.0), process(3, 2, 2.0), process(9, 0, 9.0))
    }
    mine = {each.pid for each in family(1, after)}
    assert mine == {1, 2, 3}
    assert cpu_by_role(before, after, lambda each: each.title if each.pid in mine else None) == {
        "p1": 1.0,
        "p2": 3.0,
        "p3": 2.0,
    }
