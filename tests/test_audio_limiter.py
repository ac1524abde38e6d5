"""The limiter: a wall at the ceiling, nothing touched below it, the same however the audio is cut."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rocktop_ray.audio.level import from_db
from rocktop_ray.audio.limiter import Limiter
from rocktop_ray.errors import SettingsError
from rocktop_ray.protocols import Array

QUICK = settings(max_examples=25, deadline=None)
CEILING = from_db(-1)


def limited(audio: Array, cuts: list[int] | None = None, rate: int = 48_000) -> tuple[Array, float]:
    limiter = Limiter(rate)
    edges = [0, *sorted(min(cut, len(audio)) for cut in cuts or []), len(audio)]
    parts = [limiter.push(audio[a:b]) for a, b in itertools.pairwise(edges)]
    return np.concatenate([*parts, limiter.finish()]), limiter.deepest_db


def burst(samples: int, loud: list[int], level: float) -> Array:
    audio = (0.4 * np.sin(np.arange(samples) * 0.05)).astype(np.float32)
    for at in loud:
        audio[at : at + 200] *= level
    return audio


@QUICK
@given(
    samples=st.integers(0, 60_000),
    loud=st.lists(st.integers(0, 60_000), max_size=4),
    level=st.floats(0.1, 40),
    cuts=st.lists(st.integers(0, 60_000), max_size=5),
    rate=st.sampled_from([8_000, 44_100, 48_000]),
)
def test_wall_length_and_cuts(samples: int, loud: list[int], level: float, cuts: list[int], rate: int) -> None:
    audio = burst(samples, loud, level)
    out, deepest = limited(audio, cuts, rate)
    assert len(out) == samples and out.dtype == np.float32
    assert np.abs(out).max(initial=0) <= CEILING
    assert out.tobytes() == limited(audio, None, rate)[0].tobytes()
    # Never louder than the source, never turned over.
    assert (np.abs(out) <= np.abs(audio)).all() and (out * audio >= 0).all()
    if np.abs(audio).max(initial=0) <= CEILING:
        assert out.tobytes() == audio.tobytes() and deepest == 0


def test_the_ceiling_itself_is_not_touched() -> None:
    top = np.float32(CEILING)
    top = top if float(top) <= CEILING else np.nextafter(top, np.float32(0))
    audio = np.tile(np.array([top, -top], np.float32), 30_000)
    assert limited(audio)[0].tobytes() == audio.tobytes()
    audio[31_000] = np.nextafter(top, np.float32(1))
    assert np.abs(limited(audio)[0]).max() <= CEILING


def test_gain_falls_within_the_look_ahead_and_comes_back() -> None:
    """A 6 dB peak touches 5 ms before it and, at 40 dB/s, 150 ms behind; all else is the source's."""
    audio = np.full(96_000, 0.5, np.float32)
    audio[48_000] = 2 * CEILING
    out, deepest = limited(audio)
    changed = np.flatnonzero(out != audio)
    assert 48_000 - 240 <= changed[0] < 48_000
    assert 48_000 + 0.14 * 48_000 < changed[-1] < 48_000 + 0.16 * 48_000 + 240
    assert out[48_000] == pytest.approx(CEILING, rel=1e-4) and deepest == pytest.approx(6.02, abs=0.01)
    # No step: the gain moves by less than 0.1 dB from sample to sample.
    gain = 20 * np.log10(np.delete(out / audio, 48_000))
    assert np.abs(np.diff(gain)).max() < 0.1


def test_steady_loudness_is_held_without_distortion() -> None:
    """A sine 3 dB over the ceiling comes out as a sine at the ceiling: its harmonics stay 60 dB below."""
    audio = (CEILING * 1.4125 * np.sin(2 * np.pi * 1000 * np.arange(96_000) / 48_000)).astype(np.float32)
    out, _ = limited(audio)
    spectrum = np.abs(np.fft.rfft(out[24_000:72_000] * np.hanning(48_000)))
    harmonics = np.delete(spectrum, np.s_[990:1011])
    assert 20 * np.log10(harmonics.max() / spectrum[1000]) < -60


def test_a_ceiling_above_full_scale_is_refused() -> None:
    with pytest.raises(SettingsError, match="0 dBFS"):
        Limiter(48_000, 1.0)
