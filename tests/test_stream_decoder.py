"""The streaming decoder: chunked equals whole, at every block size, with the delay that its layers say."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_voices import tiny_config, tiny_state

from rocktop_ray.errors import SettingsError
from rocktop_ray.models.rvc.config import SynthesizerConfig
from rocktop_ray.models.rvc.stream import DecoderStream
from rocktop_ray.models.rvc.voice import RvcVoice
from rocktop_ray.noise import SeededNoise
from rocktop_ray.protocols import Array

TOLERANCE = 1e-4  # of the peak
STOCK = {
    "resblock_kernel_sizes": (3, 7, 11),
    "resblock_dilation_sizes": ((1, 3, 5),) * 3,
    "upsample_rates": (12, 10, 2, 2),
    "upsample_kernel_sizes": (24, 20, 4, 4),
    "sample_rate": 48_000,
}
KINDS: dict[str, dict[str, Any]] = {
    "v2 48k": STOCK | {"upsample_initial_channel": 128},
    "v1 48k": STOCK | {"upsample_rates": (10, 6, 2, 2, 2), "upsample_kernel_sizes": (16, 16, 4, 4, 4),
                       "upsample_initial_channel": 64},
    "40k": STOCK | {"upsample_rates": (10, 10, 2, 2), "upsample_kernel_sizes": (16, 16, 4, 4), "sample_rate": 40_000,
                    "upsample_initial_channel": 32},
    "v2 32k": STOCK | {"upsample_rates": (10, 8, 2, 2), "upsample_kernel_sizes": (20, 16, 4, 4), "sample_rate": 32_000,
                       "upsample_initial_channel": 32},
    "no F0": {"uses_f0": False},
    "MRF": {"decoder": "mrf-hifigan", "resblock_kernel_sizes": (3, 7), "resblock_dilation_sizes": ((1, 3),) * 2},
    "single convolutions": {"resblock": "2"},
    "odd rates": {"upsample_rates": (5, 3, 7), "upsample_kernel_sizes": (10, 7, 14), "sample_rate": 10_500},
    "one tap": {"resblock_kernel_sizes": (1, 5), "resblock_dilation_sizes": ((1, 3),) * 2},
}  # fmt: skip


@cache
def voice(kind: str) -> RvcVoice:
    config: SynthesizerConfig = tiny_config(**KINDS[kind])
    return RvcVoice(config, tiny_state(config), content_name="test")


def inputs(kind: str, frames: int, seed: int = 0) -> tuple[Array, Array]:
    random = np.random.default_rng(seed)
    latent = random.standard_normal((voice(kind).spec.latent_dim, frames)).astype(np.float32)
    f0 = 200 * 2 ** np.cumsum(random.normal(0, 0.02, frames))
    f0[random.random(frames) < 0.1] = 0
    return latent, f0.astype(np.float32)


def streamed(stream: DecoderStream, kind: str, latent: Array, f0: Array, cuts: list[int]) -> Array:
    speaker = voice(kind).speaker_embedding(1)
    melody = f0 if voice(kind).spec.uses_f0 else None
    state, parts = stream.begin(), []
    for low, high in zip([0, *cuts], [*cuts, latent.shape[1]], strict=True):
        block = None if melody is None else melody[low:high]
        state, wave = stream.step(state, latent[:, low:high], block, speaker, noise=SeededNoise(3), frame_offset=7)
        assert len(wave) == (high - low) * stream.hop
        parts.append(wave)
    return np.concatenate([*parts, stream.finish(state, speaker)])


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=6, deadline=None)
@given(data=st.data())
def test_blocks_join_to_the_whole(kind: str, data: st.DataObject) -> None:
    """Every size from 10 ms to 1 s, irregular too: at most 1e-4 of the full scale from the whole, at every sample."""
    frames = data.draw(st.integers(1, 130))
    cuts, at = [], 0
    while (at := at + data.draw(st.integers(1, 100))) < frames:
        cuts.append(at)
    latent, f0 = inputs(kind, frames)
    stream = voice(kind).decoder_stream()
    whole = voice(kind).wave(latent, f0, speaker=1, noise=SeededNoise(3), frame_offset=7)
    joined = streamed(stream, kind, latent, f0, cuts)
    early = min(stream.delay, len(whole))
    assert not joined[: len(joined) - len(whole)].any()
    assert len(joined) == len(whole) + early
    peak = np.abs(whole).max()
    assert peak > 0
    assert np.abs(joined[-len(whole) :] - whole).max() <= TOLERANCE * peak


@pytest.mark.parametrize("kind", ["v2 48k", "no F0", "MRF"])
def test_threads_that_share_a_block_make_the_same(kind: str) -> None:
    """Up to rounding: sums are cut between them."""
    latent, f0 = inputs(kind, 60)
    stream = voice(kind).decoder_stream()
    alone = streamed(stream, kind, latent, f0, [16, 32])
    usual = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        together = streamed(stream, kind, latent, f0, [16, 32])
    finally:
        torch.set_num_threads(usual)
    assert np.abs(together - alone).max() <= 1e-5 * np.abs(alone).max()


def test_delay_is_added_up_from_the_layers() -> None:
    """Stock v2 48k by hand: 3 frames, then padding and reach of each stage, each at its own rate, then the last 3."""
    assert voice("v2 48k").decoder_stream().delay == 3 * 480 + (6 + 60) * 40 + (5 + 60) * 4 + (1 + 60) * 2 + 61 + 3


@pytest.mark.parametrize("kind", ["v2 48k", "no F0", "MRF", "single convolutions", "odd rates", "one tap"])
def test_delay_is_no_longer_than_the_layers_need(kind: str) -> None:
    """The newest frame already changes the end of what comes out with it (its very last samples by less than float32
    can show), and nothing before its own time.
    """
    stream, speaker = voice(kind).decoder_stream(), voice(kind).speaker_embedding(0)
    latent, f0 = inputs(kind, 60)
    melody = f0 if voice(kind).spec.uses_f0 else None
    changed = latent.copy()
    changed[:, -1] += 1
    plain = stream.step(stream.begin(), latent, melody, speaker)[1]
    other = stream.step(stream.begin(), changed, melody, speaker)[1]
    touched = np.flatnonzero(plain != other)
    assert len(touched)
    assert len(plain) - touched[-1] <= stream.hop // 4
    assert len(plain) - touched[0] < voice(kind).context * stream.hop + stream.delay


def test_a_step_leaves_its_state_as_it_was() -> None:
    """So a block can be sent again: to the same weights, or to others that hold the same."""
    stream, speaker = voice("v2 48k").decoder_stream(), voice("v2 48k").speaker_embedding(0)
    latent, f0 = inputs("v2 48k", 30)
    state, _ = stream.step(stream.begin(), latent[:, :20], f0[:20], speaker)
    first = stream.step(state, latent[:, 20:], f0[20:], speaker)[1]
    stream.finish(state, speaker)
    assert np.array_equal(stream.step(state, latent[:, 20:], f0[20:], speaker)[1], first)


def test_long_notes_keep_their_phase() -> None:
    """A take as long as the longest chunk of an offline conversion, on one note."""
    frames = 4300
    latent, _ = inputs("MRF", frames)
    for kind in ("MRF", "single convolutions"):
        f0 = np.full(frames, 219.9, np.float32)
        whole = voice(kind).wave(latent, f0)
        stream, speaker = voice(kind).decoder_stream(), voice(kind).speaker_embedding(0)
        state, parts = stream.begin(), []
        for at in range(0, frames, 50):
            state, wave = stream.step(state, latent[:, at : at + 50], f0[at : at + 50], speaker)
            parts.append(wave)
        joined = np.concatenate(parts)[stream.delay :]
        assert np.abs(joined - whole[: len(joined)]).max() <= TOLERANCE * np.abs(whole).max()


def test_refinegan_has_no_streaming_form() -> None:
    config = tiny_config(
        decoder="refinegan",
        upsample_rates=(5, 2, 2, 4),
        upsample_kernel_sizes=(10, 4, 4, 8),
        upsample_initial_channel=512,
        gin_channels=256,
    )
    with pytest.raises(SettingsError, match="HiFi-GAN"):
        RvcVoice(config, tiny_state(config), content_name="test").decoder_stream()
