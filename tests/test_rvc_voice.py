"""Voices of RVC synthesizers as the pipeline uses them."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small_rvc import DECODERS, configs, inputs, melody, singer, weights

from rocktop_ray.errors import SettingsError
from rocktop_ray.models.rvc.config import Decoder, SynthesizerConfig
from rocktop_ray.models.rvc.voice import RvcVoice
from rocktop_ray.noise import SeededNoise


@settings(deadline=None, max_examples=8)
@given(configs(), st.integers(1, 20), st.integers(0, 1000))
def test_any_voice_sings(config: SynthesizerConfig, frames: int, seed: int) -> None:
    voice = RvcVoice(config, weights(config, seed), content_name="test")
    units, _ = inputs(config, frames)
    f0 = melody(frames, seed) if config.uses_f0 else None
    latent = voice.latent(units, f0, noise=SeededNoise(seed))
    wave = voice.wave(latent, f0, noise=SeededNoise(seed))
    assert latent.shape == (config.inter_channels, frames)
    assert wave.shape == (frames * config.hop,)
    assert wave.dtype == latent.dtype == np.float32
    assert np.isfinite(latent).all()
    assert np.isfinite(wave).all()
    assert np.abs(wave).max() <= 1


@pytest.mark.parametrize("decoder", DECODERS)
def test_a_part_is_that_part_of_the_whole(decoder: Decoder) -> None:
    voice = singer(decoder)
    frames, hop = 2 * voice.context + 30, voice.spec.hop
    _, latent = inputs(voice.config, frames)
    f0, noise = melody(frames), SeededNoise(3)
    whole = voice.wave(latent, f0, speaker=1, noise=noise, frame_offset=5)
    assert whole.std() > 0.01
    for start, stop in ((0, 3), (voice.context + 11, voice.context + 14), (frames - 2, frames)):
        part = voice.wave(latent, f0, speaker=1, noise=noise, frame_offset=5, start=start, stop=stop)
        np.testing.assert_allclose(part, whole[start * hop : stop * hop], rtol=0, atol=3e-6)
    assert voice.wave(latent, f0, start=4, stop=4).shape == (0,)


@pytest.mark.parametrize("decoder", DECODERS)
def test_noise_speaker_and_temperature_matter(decoder: Decoder) -> None:
    voice = singer(decoder)
    frames = 12
    units, latent = inputs(voice.config, frames)
    f0, noise = melody(frames), SeededNoise(3)
    still = voice.latent(units, f0)
    drawn = voice.latent(units, f0, noise=noise)
    assert np.abs(drawn - still).max() > 0.05
    np.testing.assert_array_equal(drawn, voice.latent(units, f0, noise=noise))
    np.testing.assert_array_equal(still, voice.latent(units, f0, noise=noise, temperature=0))
    assert np.abs(drawn - voice.latent(units, f0, noise=noise, frame_offset=1)).max() > 0.05
    assert np.abs(still - voice.latent(units, f0, speaker=1)).max() > 0.01
    wave = voice.wave(latent, f0)
    assert np.abs(wave - voice.wave(latent, f0, noise=noise)).max() > 1e-4
    assert np.abs(wave - voice.wave(latent, f0, speaker=1)).max() > 1e-4


def test_a_voice_without_f0_ignores_it() -> None:
    voice = singer("hifigan", False)
    units, latent = inputs(voice.config, 9)
    assert not voice.spec.uses_f0
    np.testing.assert_array_equal(voice.latent(units, None), voice.latent(units, melody(9)))
    np.testing.assert_array_equal(voice.wave(latent, None), voice.wave(latent, melody(9)))


def test_input_that_does_not_fit_is_refused() -> None:
    voice = singer()
    units, latent = inputs(voice.config, 9)
    f0 = melody(9)
    broken = f0.copy()
    broken[3] = math.nan
    for call in (
        lambda: voice.latent(units[:, :4], f0),
        lambda: voice.latent(units[:0], f0),
        lambda: voice.latent(units[0], f0),
        lambda: voice.latent(units, None),
        lambda: voice.latent(units, f0[:8]),
        lambda: voice.latent(units, broken),
        lambda: voice.latent(units, -f0 - 1),
        lambda: voice.latent(units, f0, speaker=3),
        lambda: voice.latent(units, f0, speaker=-1),
        lambda: voice.latent(units, f0, temperature=math.nan),
        lambda: voice.wave(latent[:4], f0),
        lambda: voice.wave(latent, f0[:8]),
        lambda: voice.wave(latent, None),
        lambda: voice.wave(latent, f0, start=5, stop=4),
        lambda: voice.wave(latent, f0, stop=10),
        lambda: voice.wave(latent, f0, start=-1),
    ):
        with pytest.raises(SettingsError):
            call()


@pytest.mark.parametrize("decoder", DECODERS)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_reduced_precision_is_near(decoder: Decoder, dtype: torch.dtype) -> None:
    exact = singer(decoder)
    config = exact.config
    rough = RvcVoice(config, weights(config), content_name="test", dtype=dtype)
    units, latent = inputs(config, 12)
    f0 = melody(12)
    tolerance = 0.01 if dtype == torch.float16 else 0.06
    for ours, theirs in (
        (rough.latent(units, f0), exact.latent(units, f0)),
        (rough.wave(latent, f0), exact.wave(latent, f0)),
    ):
        assert ours.dtype == np.float32
        assert np.abs(ours - theirs).max() <= tolerance * np.abs(theirs).max()


def test_spec() -> None:
    spec = singer().spec
    assert (spec.sample_rate, spec.hop, spec.speakers, spec.latent_dim) == (8000, 80, 3, 8)
    assert (spec.content.name, spec.content.dim) == ("test", 10)
