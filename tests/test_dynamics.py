"""Loudness carried over: against the formula over the whole, and in parts to the very bytes."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rocktop_ray.dynamics import LoudnessMixer, loudness_curve, mix_loudness, stretch

QUICK = settings(max_examples=20, deadline=None)


def sounds(samples: int, seed: int = 0) -> np.ndarray:
    random = np.random.default_rng(seed)
    return (random.standard_normal(samples) * np.sin(np.arange(samples) / 9_000) * 0.2).astype(np.float32)


@pytest.mark.parametrize("samples", [1, 7_999, 8_000, 16_000, 100_001])
def test_curve_is_the_rms_of_centred_seconds(samples: int) -> None:
    audio = sounds(samples)
    padded = np.pad(audio.astype(np.float64), 8_000)
    frames = [padded[start : start + 16_000] for start in range(0, samples + 1, 8_000)]
    expected = [np.sqrt(np.mean(frame**2)) for frame in frames]
    assert loudness_curve(audio, 16_000) == pytest.approx(expected, rel=1e-9, abs=1e-9)


@QUICK
@given(points=st.integers(1, 30), samples=st.integers(1, 3_000))
def test_stretch_is_torchs_interpolation(points: int, samples: int) -> None:
    curve = np.random.default_rng(points).random(points)
    theirs = torch.nn.functional.interpolate(torch.tensor(curve)[None, None], samples, mode="linear")[0, 0]
    assert stretch(curve, samples) == pytest.approx(theirs.numpy(), abs=1e-6)


@QUICK
@given(
    samples=st.integers(0, 200_000),
    rate=st.sampled_from([24_000, 32_000, 40_000, 48_000]),
    keep=st.sampled_from([0.0, 0.25, 0.9, 1.0]),
    cuts=st.lists(st.integers(0, 200_000), max_size=5),
)
def test_parts_join_to_the_bytes_of_the_whole(samples: int, rate: int, keep: float, cuts: list[int]) -> None:
    source, wave = sounds(samples * 16_000 // rate, 1), sounds(samples, 2)
    whole = mix_loudness(source, 16_000, wave, rate, keep)
    mixer = LoudnessMixer(source, 16_000, samples, rate, keep)
    edges = [0, *sorted(min(cut, samples) for cut in cuts), samples]
    parts = [mixer.push(wave[a:b]) for a, b in itertools.pairwise(edges)]
    assert samples - sum(map(len, parts)) <= 1.6 * rate
    assert np.concatenate([*parts, mixer.finish()]).tobytes() == whole.tobytes()
    assert len(whole) == samples and np.isfinite(whole).all()


def test_the_result_takes_the_sources_loudness() -> None:
    """A tone at -14 dB made of one at -26 dB: within 0.1 dB away from the ends, where a frame holds silence."""
    tone = np.sin(np.arange(480_000) * 0.07).astype(np.float32)
    mixed = mix_loudness(0.2 * tone[:160_000], 16_000, 0.05 * tone, 48_000, 0.0)
    assert mixed[96_000:-96_000] == pytest.approx(0.2 * tone[96_000:-96_000], abs=0.0025)
    assert np.array_equal(mix_loudness(tone[:160_000], 16_000, tone, 48_000, 1.0), tone)
