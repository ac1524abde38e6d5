"""Resampling: exact lengths, chunked = whole, a tone stays a tone, images stay below the noise of 24 bits."""

import shutil
import subprocess

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from rocktop_ray.audio.resample import StreamResampler, resample, resampled_length
from rocktop_ray.errors import SettingsError

RATES = [8_000, 11_025, 16_000, 22_050, 32_000, 40_000, 44_100, 48_000, 96_000]


def noise(samples: int, seed: int = 0) -> np.ndarray:
    return (0.2 * np.random.default_rng(seed).standard_normal(samples)).astype(np.float32)


@settings(max_examples=25, deadline=None)
@given(
    st.integers(0, 20_000),
    st.sampled_from(RATES),
    st.sampled_from(RATES),
    st.lists(st.integers(1, 9_000), min_size=1, max_size=5),
)
def test_chunked_equals_whole(samples, from_rate, to_rate, sizes):
    audio = noise(samples)
    whole = resample(audio, from_rate, to_rate)
    assert len(whole) == resampled_length(samples, from_rate, to_rate)
    assert whole.dtype == np.float32
    resampler, parts, start, turn = StreamResampler(from_rate, to_rate), [], 0, 0
    while start < samples:
        size = sizes[turn % len(sizes)]
        parts.append(resampler.push(audio[start : start + size]))
        start, turn = start + size, turn + 1
    chunked = np.concatenate([*parts, resampler.finish()])
    assert chunked.shape == whole.shape
    assert np.abs(chunked - whole).max(initial=0) <= 1e-6


def test_lengths_round_half_up():
    assert resampled_length(1, 2, 1) == 1
    assert resampled_length(3, 2, 1) == 2
    assert resampled_length(44_100, 44_100, 48_000) == 48_000


@pytest.mark.parametrize(("from_rate", "to_rate"), [(44_100, 48_000), (48_000, 16_000), (40_000, 48_000)])
def test_a_tone_keeps_its_phase_and_level(from_rate, to_rate):
    def tone(rate):
        time = np.arange(rate) / rate
        return (0.5 * np.sin(2 * np.pi * 997 * time)).astype(np.float32)

    error = resample(tone(from_rate), from_rate, to_rate) - tone(to_rate)
    assert np.abs(error[2000:-2000]).max() < 1e-6


def test_what_does_not_fit_is_filtered_out():
    time = np.arange(48_000) / 48_000
    high = np.sin(2 * np.pi * 9_500 * time).astype(np.float32)
    assert np.abs(resample(high, 48_000, 16_000)[1000:-1000]).max() < 1e-6  # -120 dB


def test_channels_are_apart():
    left, right = noise(5000, 1), noise(5000, 2)
    both = resample(np.stack([left, right], axis=1), 44_100, 48_000)
    assert np.array_equal(both[:, 0], resample(left, 44_100, 48_000))
    assert np.array_equal(both[:, 1], resample(right, 44_100, 48_000))
    assert resample(left[:, None], 44_100, 48_000).shape == (len(both), 1)


def test_impossible_rates():
    with pytest.raises(SettingsError, match="0 Hz"):
        StreamResampler(0, 48_000)


@pytest.mark.skipif(shutil.which("sox") is None, reason="SoX is not installed")
@pytest.mark.parametrize("to_rate", [16_000, 48_000])
def test_sox_agrees(tmp_path, to_rate):
    """Against SoX's own VHQ rate conversion: the difference stays below -90 dB of the signal in the pass band."""
    time = np.arange(2 * 44_100) / 44_100
    sweep = 0.4 * np.sin(2 * np.pi * (50 * time + 1500 * time**2)) * np.hanning(len(time))  # up to 6 kHz
    audio = (sweep + 0.02 * np.sin(2 * np.pi * 440 * time)).astype(np.float32)
    soundfile.write(tmp_path / "in.wav", audio, 44_100, subtype="FLOAT")
    command = [
        "sox",
        "-D",
        tmp_path / "in.wav",
        "-e",
        "float",
        "-b",
        "32",
        tmp_path / "out.wav",
        "rate",
        "-v",
        str(to_rate),
    ]
    subprocess.run(command, check=True)
    theirs, _ = soundfile.read(tmp_path / "out.wav", dtype="float32")
    ours = resample(audio, 44_100, to_rate)
    assert abs(len(ours) - len(theirs)) <= 1
    size = min(len(ours), len(theirs))
    window = np.hanning(size)
    difference = np.abs(np.fft.rfft((ours[:size] - theirs[:size]) * window))
    reference = np.abs(np.fft.rfft(theirs[:size] * window))
    assert difference.max() < 10 ** (-90 / 20) * reference.max()
