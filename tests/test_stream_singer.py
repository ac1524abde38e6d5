"""The bundle's synthesizer in blocks of any size equals the whole."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rocktop_ray.live.state import pack, unpack
from rocktop_ray.models.singer import SingerVoice
from rocktop_ray.models.singer.source import filled
from rocktop_ray.noise import SeededNoise
from rocktop_ray.protocols import Array
from rocktop_ray.voices.open import open_voice

TOLERANCE = 1e-4


@cache
def voice() -> SingerVoice:
    model = open_voice("bundle").model
    assert isinstance(model, SingerVoice)
    return model


def inputs(frames: int) -> tuple[Array, Array]:
    random = np.random.default_rng(frames)
    units = random.standard_normal((frames, voice().spec.content.dim)).astype(np.float32)
    f0 = 300 * 2 ** np.cumsum(random.normal(0, 0.03, frames))
    f0[(np.arange(frames) // 7) % 3 == 0] = 0
    return units, f0.astype(np.float32)


def blocks(data: st.DataObject, frames: int) -> list[slice]:
    cuts = [0]
    while cuts[-1] < frames:
        cuts.append(min(frames, cuts[-1] + data.draw(st.integers(1, 100))))
    return [slice(low, high) for low, high in pairwise(cuts)]


@settings(max_examples=15, deadline=None)
@given(st.data())
def test_latent_of_blocks_is_that_of_the_whole(data: st.DataObject) -> None:
    frames = data.draw(st.integers(1, 160))
    units, f0 = inputs(frames)
    whole = voice().latent(units, f0)
    stream = voice().net_stream()
    state, parts = stream.begin(), []
    for part in blocks(data, frames):
        state, latent = stream.step(state, units[part], filled(f0)[part], f0[part] > 0)
        assert latent.shape[1] == part.stop - part.start
        parts.append(latent)
    joined = np.concatenate([*parts, stream.early(state)], axis=1)
    assert np.abs(joined[:, -frames:] - whole).max() <= TOLERANCE
    for most in (1, 5, 30, 45):
        for last in (1, most):
            some = stream.early(state, most, last)
            assert some.shape[1] == last
            assert np.abs(some - stream.early(state)[:, most - last : most]).max() <= TOLERANCE


@settings(max_examples=15, deadline=None)
@given(st.data())
def test_wave_of_blocks_is_that_of_the_whole(data: st.DataObject) -> None:
    frames = data.draw(st.integers(1, 160))
    units, f0 = inputs(frames)
    latent = voice().latent(units, f0)
    noise = SeededNoise(5) if data.draw(st.booleans()) else None
    whole = voice().wave(latent, f0, noise=noise, frame_offset=3)
    stream = voice().vocoder_stream()
    state, parts = stream.begin(), []
    for part in blocks(data, frames):
        state = unpack(pack(state), stream.begin())
        state, wave = stream.step(state, latent[:, part], filled(f0)[part], noise=noise, frame_offset=3)
        assert len(wave) == (part.stop - part.start) * stream.hop
        parts.append(wave)
    joined = np.concatenate([*parts, stream.finish(state, noise=noise, frame_offset=3)])
    assert len(joined) == len(whole) + min(stream.delay, len(whole))
    assert not joined[: -len(whole)].any()
    assert np.abs(joined[-len(whole) :] - whole).max() <= TOLERANCE


def test_early_frames_leave_the_stream_as_it_was_and_get_better() -> None:
    frames = 200
    units, f0 = inputs(frames)
    melody, whole = filled(f0), voice().latent(units, f0)
    stream = voice().net_stream()
    state, _ = stream.step(stream.begin(), units[:120], melody[:120], f0[:120] > 0)
    first = pack(state)
    early = stream.early(state)
    assert pack(state) == first
    wrong = np.abs(early - whole[:, 120 - stream.lag : 120]).max(0)
    assert wrong[0] < wrong[-1]
    known, _ = stream.step(state, units[120:], melody[120:], f0[120:] > 0)
    assert known.frames == frames


def test_the_lag_is_the_receptive_field_of_the_blocks() -> None:
    assert voice().net_stream().lag == 3 * (1 + 1 + 2 + 2 + 4 + 4 + 1)


def test_phase_is_exact_after_an_hour() -> None:
    """The state holds the phase below one cycle: an hour of frames later, the same pulses come out."""
    stream = voice().vocoder_stream()
    latent, f0 = np.full((voice().spec.latent_dim, 4), -1, np.float32), np.full(4, 220.0)
    state, _ = stream.step(stream.begin(), latent, f0)
    late = replace(state, frames=state.frames + 360_000)
    assert np.array_equal(stream.step(state, latent, f0)[1], stream.step(late, latent, f0)[1])


def test_a_first_block_of_noise_has_no_negative_rows() -> None:
    stream = voice().vocoder_stream()
    latent = np.full((voice().spec.latent_dim, 1), -1, np.float32)
    _, wave = stream.step(stream.begin(), latent, np.full(1, 220.0), noise=SeededNoise(0))
    assert wave == pytest.approx(0)
