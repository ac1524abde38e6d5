import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rocktop_ray.models.singer.source import DEFAULT_HZ, cycles, filled, pulses

RATE, HOP = 48_000, 480


def test_gaps_are_filled_on_the_log_scale():
    f0 = np.array([0, 100, 0, 400, 0], np.float32)
    assert np.allclose(filled(f0), [100, 100, 200, 400, 400])
    assert np.all(filled(np.zeros(3, np.float32)) == DEFAULT_HZ)


def test_phase_is_the_integral_of_f0():
    f0 = 200 + 50 * np.sin(np.arange(300) / 20)
    fine = np.interp(np.arange(299 * HOP + 1) / HOP, np.arange(300), f0)
    integral = np.concatenate([[0], np.cumsum((fine[1:] + fine[:-1]) / 2)]) / RATE
    assert np.abs(cycles(f0, HOP, RATE) - integral[::HOP]).max() < 1e-9


@pytest.mark.parametrize("hertz", [80.0, 227.3, 700.0])
def test_steady_pulses_have_only_harmonics_and_unit_power_density(hertz):
    train = pulses(np.full(100, hertz), 0, 100, HOP, RATE).astype(np.float64)
    spectrum = np.abs(np.fft.rfft(train * np.blackman(len(train)))) ** 2
    bins = np.fft.rfftfreq(len(train), 1 / RATE)
    away = np.abs(bins / hertz - np.round(bins / hertz)) * hertz > 4
    inside = (bins > 40) & (bins < 18_000)
    assert spectrum[inside & away].max() < 1e-5 * spectrum[inside].max()
    assert (train**2).mean() == pytest.approx(1.0, abs=0.06)


def test_pulses_sit_where_the_phase_is_whole():
    train = pulses(np.full(20, 100.0), 0, 20, HOP, RATE)
    assert np.array_equal(np.flatnonzero(train > 0.5 * train.max()), np.arange(20) * 480)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 29), st.integers(0, 30), st.integers(0, 2**31))
def test_a_part_equals_that_part_of_the_whole(start, length, seed):
    f0 = np.random.default_rng(seed).uniform(60, 900, 30)
    stop = min(30, start + length)
    whole = pulses(f0, 0, 30, HOP, RATE)
    assert np.array_equal(pulses(f0, start, stop, HOP, RATE), whole[start * HOP : stop * HOP])
