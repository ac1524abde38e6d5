"""The parts of the RVC synthesizer: attention, flow, sources, contexts."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from small_rvc import configs, melody, small, stock

from rocktop_ray.models.rvc.config import Decoder, SynthesizerConfig
from rocktop_ray.models.rvc.context import context_frames
from rocktop_ray.models.rvc.hifigan import HifiganDecoder
from rocktop_ray.models.rvc.pitch_bins import coarse_pitch
from rocktop_ray.models.rvc.prior_encoder import WINDOW, RelativeAttention
from rocktop_ray.models.rvc.refinegan import RefineganDecoder, decimate, stretch
from rocktop_ray.models.rvc.source import SINE_AMPLITUDE, PhaseSum, sine_source
from rocktop_ray.models.rvc.synthesizer import Synthesizer

# --- parts ---------------------------------------------------------------------------------------


def test_coarse_pitch_table() -> None:
    f0 = [0, 20, 50, 110, 220, 440, 880, 1046.5, 1100, 4000]
    assert coarse_pitch(f0).tolist() == [1, 1, 1, 23, 60, 122, 217, 246, 255, 255]


def dense_attention(layer: RelativeAttention, x: torch.Tensor) -> torch.Tensor:
    """The definition, with every frame's relative embedding written out."""
    frames = x.shape[2]
    query, key, value = (
        conv(x)[0].unflatten(0, (layer.heads, -1)).mT for conv in (layer.conv_q, layer.conv_k, layer.conv_v)
    )
    place = torch.arange(frames)[None] - torch.arange(frames)[:, None] + WINDOW
    near = ((place >= 0) & (place <= 2 * WINDOW))[..., None]
    keys, values = (table[0][place.clamp(0, 2 * WINDOW)] * near for table in (layer.emb_rel_k, layer.emb_rel_v))
    query = query / math.sqrt(query.shape[2])
    scores = query @ key.mT + torch.einsum("hqd,qkd->hqk", query, keys)
    probability = scores.softmax(2)
    out = probability @ value + torch.einsum("hqk,qkd->hqd", probability, values)
    return layer.conv_o(out.mT.flatten(0, 1)[None])


@pytest.mark.parametrize("frames", [1, 5, 300])
def test_attention_in_blocks_is_the_definition(frames: int) -> None:
    torch.manual_seed(frames)
    layer = RelativeAttention(12, 2, 0.0).double()
    x = torch.randn(1, 12, frames, dtype=torch.float64)
    torch.testing.assert_close(layer(x), dense_attention(layer, x))
    padded = F.pad(x, (0, 9), value=3.0)
    mask = F.pad(torch.ones(1, 1, frames, dtype=torch.float64), (0, 9))
    torch.testing.assert_close(layer(padded, mask)[..., :frames], layer(x))


def test_flow_undoes_itself_and_posterior_has_its_shape() -> None:
    torch.manual_seed(0)
    model = Synthesizer(small(), training=True).double()
    speaker = model.speaker(torch.tensor([0, 2]))
    x = torch.randn(2, 8, 30, dtype=torch.float64)
    mask = torch.ones(2, 1, 30, dtype=torch.float64)
    mask[1, :, 20:] = 0
    there = model.flow(x * mask, speaker, mask)
    assert (there - x * mask).abs().max() > 0.1
    torch.testing.assert_close(model.flow.inverse(there, speaker, mask), x * mask)
    mean, log_scale = model.enc_q(torch.randn(2, 33, 30, dtype=torch.float64), speaker, mask)
    assert mean.shape == log_scale.shape == x.shape
    assert not mean[1, :, 20:].any()


@pytest.mark.parametrize(("phase_sum", "overtones"), [("frames", 0), ("samples", 8), ("gliding", 0)])
def test_source_is_a_sine_of_the_melody(phase_sum: PhaseSum, overtones: int) -> None:
    hop, rate, frames = 480, 48_000, 300
    f0 = np.maximum(melody(frames), 150)
    if phase_sum == "gliding":
        middles = (np.arange(frames) + 0.5) * hop - 0.5
        per_sample = np.interp(np.arange(frames * hop), middles, f0)
    else:
        per_sample = np.repeat(f0.astype(np.float64), hop)
    phase = 2 * np.pi * np.cumsum(per_sample / rate)
    exact = SINE_AMPLITUDE * np.sin(phase[:, None] * np.arange(1, overtones + 2))
    options: dict[str, Any] = {"hop": hop, "sample_rate": rate, "overtones": overtones, "phase_sum": phase_sum}
    ours = sine_source(torch.from_numpy(f0)[None], **options)
    assert np.abs(ours[0].numpy() - exact).max() < 1e-4  # 1 mrad of the references' own rounding
    part = sine_source(torch.from_numpy(f0)[None], start=117, stop=123, **options)
    assert torch.equal(part, ours[:, 117 * hop : 123 * hop])


@pytest.mark.parametrize("phase_sum", ["frames", "samples"])
def test_unvoiced_source_is_noise(phase_sum: PhaseSum) -> None:
    f0 = torch.tensor([[0.0, 200.0, 0.0]])
    noise = torch.ones(1, 240, 1)
    silent = sine_source(f0, hop=80, sample_rate=8000, phase_sum=phase_sum)
    noisy = sine_source(f0, hop=80, sample_rate=8000, phase_sum=phase_sum, noise=noise)
    assert not silent[:, :80].any()
    assert not silent[:, 160:].any()
    assert silent[:, 80:160].abs().max() > 0.099
    torch.testing.assert_close(noisy[:, :80], torch.full((1, 80, 1), 0.1 / 3))
    torch.testing.assert_close(noisy[:, 80:160], silent[:, 80:160] + 0.003)


@pytest.mark.parametrize("rate", [2, 5, 12])
def test_decimation_keeps_what_fits_and_removes_what_does_not(rate: int) -> None:
    count = 300 * rate
    time = torch.arange(count) / rate
    low, high = torch.sin(2 * torch.pi * 0.4 * time), torch.sin(2 * torch.pi * 0.55 * time)
    kept = decimate(torch.stack([low, high])[None], rate)[0]
    assert kept.shape == (2, 300)
    middle = slice(100, 200)
    torch.testing.assert_close(kept[0, middle], low[::rate][middle], rtol=0, atol=1e-3)
    assert kept[1, middle].abs().max() < 1e-3
    odd = torch.randn(1, 1, count - 1)
    assert decimate(odd, rate).shape == (1, 1, 300)
    assert decimate(odd, 1) is odd


@pytest.mark.parametrize(("rate", "samples"), [(12, 4000), (10, 12000), (2, 500)])
def test_stretching_a_part_is_interpolation_of_the_whole(rate: int, samples: int) -> None:
    x = torch.randn(1, 3, samples, generator=torch.Generator().manual_seed(rate))
    whole = F.interpolate(x, scale_factor=float(rate), mode="linear")
    torch.testing.assert_close(stretch(x, rate, 0), whole, rtol=0, atol=2e-3)  # rounding differs between processors
    first = samples - 40
    part = stretch(x[..., first:], rate, first)
    assert torch.equal(part[..., rate:], stretch(x, rate, 0)[..., (first + 1) * rate :])


# --- contexts ------------------------------------------------------------------------------------


def reach(decoder: HifiganDecoder | RefineganDecoder, config: SynthesizerConfig, context: int) -> tuple[int, int]:
    """How many frames before and after a part, latent or source, change its wave: by the gradient, in float64."""
    first = context + 4
    last = first + 2
    frames = last + context + 4
    torch.manual_seed(3)
    latent = torch.randn(1, config.inter_channels, frames, dtype=torch.float64, requires_grad=True)
    sines = torch.randn(1, frames * config.hop, 1 + decoder.overtones, dtype=torch.float64, requires_grad=True)
    speaker = torch.randn(1, config.gin_channels, 1, dtype=torch.float64)
    wave = decoder(latent, speaker, sines if config.uses_f0 else None)
    assert wave.shape == (1, 1, frames * config.hop)
    part = wave[..., first * config.hop : last * config.hop]
    part.square().sum().backward()
    touched = latent.grad.abs().sum((0, 1)) > 0
    if config.uses_f0:
        touched |= sines.grad.abs().sum((0, 2)).unflatten(0, (frames, config.hop)).sum(1) > 0
    where = touched.nonzero()[:, 0]
    return first - int(where.min()), int(where.max()) + 1 - last


@settings(deadline=None, max_examples=25)
@given(configs())
def test_context_is_what_the_decoder_sees(config: SynthesizerConfig) -> None:
    torch.manual_seed(1)
    context = context_frames(config)
    before, after = reach(HifiganDecoder(config).double(), config, context)
    assert max(before, after) == context


def test_context_of_refinegan() -> None:
    config = small("refinegan")
    torch.manual_seed(1)
    context = context_frames(config)
    before, after = reach(RefineganDecoder(config).double(), config, context)
    assert context - 2 <= max(before, after) <= context


@pytest.mark.parametrize(
    ("kind", "decoder", "frames"), [("v2 48k", "hifigan", 10), ("v1 48k", "hifigan", 12), ("v2 48k", "refinegan", 86)]
)
def test_context_of_stock_voices(kind: str, decoder: Decoder, frames: int) -> None:
    assert context_frames(stock(kind, decoder=decoder)) == frames
