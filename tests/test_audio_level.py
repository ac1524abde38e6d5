"""Levels against closed forms and the test signals of EBU Tech 3341; trimming; several channels."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rocktop_ray.audio.level import (
    FLOOR_DBFS,
    from_db,
    normalising_gain,
    peak,
    rms,
    sounding_span,
    to_db,
)
from rocktop_ray.audio.loudness import LoudnessMeter, k_weighting, loudness
from rocktop_ray.audio.meter import measure
from rocktop_ray.errors import SettingsError


def tone(seconds, dbfs, rate=48_000, hertz=1000.0):
    time = np.arange(round(seconds * rate)) / rate
    return (from_db(dbfs) * np.sin(2 * np.pi * hertz * time)).astype(np.float32)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.floats(-4, 4, width=32), min_size=1, max_size=50), st.floats(-60, 0))
def test_normalise(values, dbfs):
    audio = np.array(values, np.float32)
    gain = normalising_gain(peak(audio), dbfs)
    if peak(audio) < 1e-30:
        return
    assert to_db(gain * peak(audio)) == pytest.approx(dbfs, abs=1e-4)


def test_silence_stays():
    assert normalising_gain(0.0) == 1.0
    assert peak(np.zeros(0, np.float32)) == rms(np.zeros(0, np.float32)) == 0.0
    assert to_db(0.0) == FLOOR_DBFS
    with pytest.raises(SettingsError, match="0 dBFS"):
        normalising_gain(1.0, 1.0)


def test_rms_and_peak():
    assert to_db(rms(tone(1, -6.0))) == pytest.approx(-9.0103, abs=1e-3)
    # A quarter of the rate, 45 degrees off: no sample reaches the crest, 3 dB above them.
    time = np.arange(4800)
    between = (np.sin(np.pi / 2 * time + np.pi / 4) * np.hanning(4800)).astype(np.float32)
    assert to_db(peak(between)) == pytest.approx(-3.01, abs=0.01)


def test_the_filters_of_the_standard():
    shelf, highpass = k_weighting(48_000)
    standard = [1.53512485958697, -2.69169618940638, 1.19839281085285, 1.0, -1.69065929318241, 0.73248077421585]
    assert np.allclose(shelf, standard, atol=1e-6)
    assert np.allclose(highpass, [1.0, -2.0, 1.0, 1.0, -1.99004745483398, 0.99007225036621], atol=1e-6)


@pytest.mark.parametrize(
    ("rate", "parts", "expected"),
    [
        (44_100, [(20, -23)], -23),
        (48_000, [(20, -33)], -33),
        (48_000, [(10, -36), (60, -23), (10, -36)], -23),
        (44_100, [(10, -72), (10, -36), (60, -23), (10, -36), (10, -72)], -23),
    ],
)
def test_loudness_of_ebu_tech_3341(rate, parts, expected):
    """Cases 1 to 4: stereo tones of 1 kHz; ±0.1 LU."""
    audio = np.concatenate([tone(seconds, dbfs, rate) for seconds, dbfs in parts])
    assert loudness(np.stack([audio, audio], axis=1), rate) == pytest.approx(expected, abs=0.1)


def test_loudness_in_blocks_and_of_little():
    audio = np.random.default_rng(0).normal(0, 0.1, 100_003).astype(np.float32)
    meter = LoudnessMeter(48_000)
    for start in range(0, len(audio), 7919):
        meter.add(audio[start : start + 7919])
    assert meter.integrated == pytest.approx(loudness(audio, 48_000), abs=1e-9)
    assert loudness(np.zeros(48_000, np.float32), 48_000) == FLOOR_DBFS
    assert loudness(np.zeros(0, np.float32), 48_000) == FLOOR_DBFS
    assert -30 < loudness(tone(0.1, -20), 48_000) < -20


def test_measure():
    audio = np.concatenate([tone(1, -6), np.full(10, 1.0, np.float32)]) + np.float32(0.0)
    levels = measure([audio[:30_000], audio[30_000:]], 48_000)
    assert levels.peak_dbfs == 0.0
    assert levels.clipped == 10
    assert levels.dc_offset == pytest.approx(10 / len(audio), abs=1e-6)
    assert levels.rms_dbfs == pytest.approx(to_db(rms(audio)), abs=1e-6)


def test_trim():
    rate = 48_000
    audio = np.concatenate([np.zeros(rate, np.float32), tone(1, -20), np.zeros(2 * rate, np.float32)])
    start, stop = sounding_span(audio, rate, keep_seconds=0.1)
    assert start == pytest.approx(0.9 * rate, abs=rate // 100)
    assert stop == pytest.approx(2.1 * rate, abs=rate // 100)
    assert sounding_span(audio, rate, threshold_db=-10) == (0, 0)
    stereo = np.stack([np.zeros_like(audio), audio], axis=1)
    assert sounding_span(stereo, rate, keep_seconds=0.1) == (start, stop)
    assert sounding_span(audio[:0], rate) == (0, 0)
    assert sounding_span(tone(1, -20), rate) == (0, rate)
