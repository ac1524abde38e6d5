"""Formant shift: formants move by the ratio, the melody does not."""

from __future__ import annotations

import numpy as np
import pytest
from pitch_tones import RATE, sung
from scipy.signal import freqz, lfilter

from rocktop_ray.errors import AudioError, SettingsError
from rocktop_ray.features import formant
from rocktop_ray.features.pitch.harvest import HarvestExtractor


def envelope_peaks(wave: np.ndarray, count: int) -> np.ndarray:
    """Formants in Hz by linear prediction (autocorrelation method) of a steady tone."""
    wave = wave[RATE // 4 : -RATE // 4].astype(np.float64)
    order = 2 * count + 4
    wave = lfilter([1, -0.9], [1], wave) * np.hanning(len(wave))
    r = np.correlate(wave, wave, "full")[len(wave) - 1 :][: order + 1]
    toeplitz = r[np.abs(np.arange(order)[:, None] - np.arange(order))]
    a = np.concatenate([[1], -np.linalg.solve(toeplitz + 1e-9 * r[0] * np.eye(order), r[1:])])
    frequency, response = freqz([1], a, 4000, fs=RATE)
    level = np.abs(response)
    top = np.flatnonzero((level[1:-1] > level[:-2]) & (level[1:-1] > level[2:])) + 1
    return np.sort(frequency[top[np.argsort(level[top])[::-1][:count]]])


@pytest.mark.parametrize("semitones", [-4, 3, 5])
def test_formants_move_by_the_ratio(semitones):
    f0 = np.full(150, 110.0)
    take = sung(f0, formants=(700, 1200, 2600))
    moved = formant.shift(take, RATE, semitones)
    before, after = envelope_peaks(take, 3), envelope_peaks(moved, 3)
    assert before == pytest.approx([700, 1200, 2600], rel=0.08)
    assert after / before == pytest.approx(2 ** (semitones / 12), rel=0.06)


@pytest.mark.parametrize("rate", [16000, 48000])
@pytest.mark.parametrize("semitones", [-5, 4])
def test_the_melody_stays(rate, semitones):
    frames = np.arange(200)
    f0 = 220 * 2 ** (np.sin(frames / 9) / 24)
    take = sung(f0, rate=rate)
    moved = formant.shift(take, rate, semitones)
    assert moved.shape == take.shape and moved.dtype == np.float32
    extractor = HarvestExtractor()
    step = rate // RATE
    before, after = extractor.f0(take[::step]), extractor.f0(moved[::step])
    both = (before > 0) & (after > 0)
    assert both.mean() > 0.9
    cents = 1200 * np.log2(after[both] / before[both])
    assert np.abs(np.median(cents)) < 2 and np.percentile(np.abs(cents), 90) < 4


def test_nothing_to_shift_is_the_take_itself():
    take = sung(np.full(80, 200.0))
    assert np.array_equal(formant.shift(take, RATE, 0), take)


def test_the_filter_is_transparent_where_the_shift_vanishes():
    take = sung(np.full(80, 200.0))
    moved = formant.shift(take, RATE, 1e-7)
    assert np.abs(moved - take).max() < 1e-4


@pytest.mark.parametrize("length", [1, 7, 160, 801, 5000])
def test_lengths_and_repeatability(length):
    take = np.random.default_rng(length).normal(0, 0.1, length).astype(np.float32)
    once, again = formant.shift(take, RATE, 3), formant.shift(take, RATE, 3)
    assert once.shape == take.shape and np.isfinite(once).all()
    assert np.array_equal(once, again)


@pytest.mark.parametrize("last", [1, 160, 700, 3000, 9999])
def test_the_end_alone_is_the_end_of_the_whole(last):
    take = sung(220 * 2 ** (np.sin(np.arange(30) / 4) / 12))
    for semitones in (0, -7, 3):
        end = formant.shift(take, RATE, semitones, last=last)
        assert len(end) == min(last, len(take))
        assert np.abs(end - formant.shift(take, RATE, semitones)[-last:]).max() < 1e-7


def test_silence_stays_silent():
    assert np.abs(formant.shift(np.zeros(8000, np.float32), RATE, 5)).max() < 1e-9


@pytest.mark.parametrize("audio", [np.zeros(0), np.zeros((2, 100)), np.array([0.0, np.nan])])
def test_audio_that_cannot_be_used(audio):
    with pytest.raises(AudioError):
        formant.shift(audio, RATE, 2)


def test_too_far():
    with pytest.raises(SettingsError, match="24"):
        formant.shift(np.zeros(100), RATE, 25)
    with pytest.raises(SettingsError):
        formant.shift(np.zeros(100), RATE, float("nan"))
