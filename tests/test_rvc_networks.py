"""The RVC synthesizer by itself: configurations, weight files, sources, contexts, noise."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from functools import cache
from typing import Any

import golden_data
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from rocktop_ray.errors import SettingsError, VoiceFormatError
from rocktop_ray.models.rvc import mrf
from rocktop_ray.models.rvc.config import Decoder, SynthesizerConfig
from rocktop_ray.models.rvc.context import context_frames
from rocktop_ray.models.rvc.hifigan import HifiganDecoder
from rocktop_ray.models.rvc.pitch_bins import coarse_pitch
from rocktop_ray.models.rvc.prior_encoder import WINDOW, RelativeAttention
from rocktop_ray.models.rvc.refinegan import RefineganDecoder, decimate, stretch
from rocktop_ray.models.rvc.source import SINE_AMPLITUDE, PhaseSum, sine_source
from rocktop_ray.models.rvc.synthesizer import Synthesizer, build
from rocktop_ray.models.rvc.voice import RvcVoice
from rocktop_ray.models.rvc.weights import file_layout, fold
from rocktop_ray.noise import SeededNoise

V2_48K = [1025, 32, 192, 192, 768, 2, 6, 3, 0, "1", [3, 7, 11], [[1, 3, 5]] * 3, [12, 10, 2, 2], 512, [24, 20, 4, 4]]
V2_48K += [109, 256, 48000]
STAGES = {
    "v2 24k": (24000, [10, 6, 2, 2], [20, 12, 4, 4]),
    "v2 32k": (32000, [10, 8, 2, 2], [20, 16, 4, 4]),
    "v2 40k": (40000, [10, 10, 2, 2], [16, 16, 4, 4]),
    "v2 48k": (48000, [12, 10, 2, 2], [24, 20, 4, 4]),
    "v1 32k": (32000, [10, 4, 2, 2, 2], [16, 16, 4, 4, 4]),
    "v1 40k": (40000, [10, 10, 2, 2], [16, 16, 4, 4]),
    "v1 48k": (48000, [10, 6, 2, 2, 2], [16, 16, 4, 4, 4]),
}
DECODERS: tuple[Decoder, ...] = ("hifigan", "mrf-hifigan", "refinegan")


def stock(kind: str, *, f0: bool = True, decoder: Decoder = "hifigan") -> SynthesizerConfig:
    values = list(V2_48K)
    values[17], values[12], values[14] = STAGES[kind]
    values[0] = 513 if values[17] <= 32000 else 1025
    return SynthesizerConfig.from_list(values, version=kind[:2], f0=f0, decoder=decoder)


def small(decoder: Decoder = "hifigan", **changes: Any) -> SynthesizerConfig:
    """8 kHz, narrow; RefineGAN's widths are fixed."""
    sizes: dict[str, Any] = {
        "spec_channels": 33,
        "inter_channels": 8,
        "hidden_channels": 12,
        "filter_channels": 16,
        "n_layers": 2,
        "upsample_rates": (5, 4, 2, 2),
        "upsample_kernel_sizes": (10, 8, 4, 4),
        "speakers": 3,
        "sample_rate": 8000,
        "content_dim": 10,
        "decoder": decoder,
    }
    if decoder != "refinegan":
        sizes |= {"upsample_initial_channel": 32, "gin_channels": 6}
    return replace(stock("v2 48k"), **(sizes | changes))


def weights(config: SynthesizerConfig, seed: int = 1) -> dict[str, torch.Tensor]:
    state = golden_data.synth.synthesizer_state(seed, file_layout(config), config.upsample_rates)
    return {name: torch.from_numpy(value) for name, value in state.items()}


@cache
def singer(decoder: Decoder = "hifigan", uses_f0: bool = True) -> RvcVoice:
    config = small(decoder, uses_f0=uses_f0)
    return RvcVoice(config, weights(config), content_name="test")


def melody(frames: int, seed: int = 0) -> np.ndarray:
    """A wandering, vibrating voice of 150 to 400 Hz with unvoiced gaps."""
    rng = np.random.default_rng(seed)
    octaves = 0.4 * np.sin(np.arange(frames) / 7) + 0.02 * rng.standard_normal(frames)
    f0 = 240 * 2**octaves
    f0[rng.random(frames) < 0.1] = 0
    return f0.astype(np.float32)


def inputs(config: SynthesizerConfig, frames: int) -> tuple[np.ndarray, np.ndarray]:
    """Units and latent frames."""
    rng = np.random.default_rng(frames)
    return (
        rng.standard_normal((frames, config.content_dim), np.float32),
        rng.standard_normal((config.inter_channels, frames), np.float32),
    )


# --- configuration -------------------------------------------------------------------------------


def test_config_list_round_trip() -> None:
    values = golden_data.layouts()["v2_48k_f0"]["config"]
    config = SynthesizerConfig.from_list(values, version="v2", f0=True)
    assert json.dumps(config.to_list()) == json.dumps(values)
    assert (config.hop, config.content_dim, config.speakers) == (480, 768, 109)
    assert SynthesizerConfig.from_list(values, version="v1", f0=False).content_dim == 256


@pytest.mark.parametrize(
    ("index", "value", "word"),
    [
        (2, 10**12, "inter_channels"),
        (2, 191, "even"),
        (3, "192", "whole number"),
        (5, 7, "n_heads"),
        (6, 10**9, "n_layers"),
        (8, math.nan, "p_dropout"),
        (9, "3", "resblock"),
        (10, [3, 7], "length"),
        (10, [3, 7, 4], "odd"),
        (10, 3, "list of whole numbers"),
        (11, [[1, 3, 5], [1, 3, 5], [1, 3, 10**6]], "dilation"),
        (11, [[1, 3, 5], [], [1]], "dilation"),
        (12, [12, 10, 2], "length"),
        (12, [12, 10, 2, 3], "multiply"),
        (12, [480] + [1] * 4000, "upsample_rates"),
        (13, 8, "too small"),
        (14, [11, 20, 4, 4], "kernel 11"),
        (14, [25, 20, 4, 4], "kernel 25"),
        (15, 0, "speakers"),
        (15, True, "whole number"),
        (17, 0, "sample_rate"),
        (17, 48001, "multiply"),
    ],
)
def test_bad_config_is_refused(index: int, value: object, word: str) -> None:
    values = list(V2_48K)
    values[index] = value
    with pytest.raises(VoiceFormatError, match=word):
        SynthesizerConfig.from_list(values, version="v2", f0=True)


@pytest.mark.parametrize("values", [[], V2_48K[:17], [*V2_48K, 1], "config", 5, None])
def test_config_of_another_length_is_refused(values: Any) -> None:
    with pytest.raises(VoiceFormatError, match="list of 18"):
        SynthesizerConfig.from_list(values, version="v2", f0=True)


def test_config_that_cannot_go_together() -> None:
    with pytest.raises(VoiceFormatError, match="version"):
        SynthesizerConfig.from_list(V2_48K, version="v3", f0=True)
    with pytest.raises(VoiceFormatError, match="needs F0"):
        stock("v2 48k", f0=False, decoder="mrf-hifigan")
    with pytest.raises(VoiceFormatError, match="4 stages"):
        stock("v1 48k", decoder="refinegan")


@settings(deadline=None, max_examples=100)
@given(st.integers(0, 17), st.recursive(st.none() | st.integers() | st.floats() | st.text(), st.lists, max_leaves=8))
def test_any_config_builds_or_is_refused(index: int, value: object) -> None:
    values = list(V2_48K)
    values[index] = value
    try:
        config = SynthesizerConfig.from_list(values, version="v2", f0=True)
    except VoiceFormatError:
        return
    assert config.hop * 100 == config.sample_rate


# --- weight files --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "f0", "decoder", "full", "shipped", "parameters"),
    [
        ("v2 40k", True, "hifigan", 560, 457, 27_537_346),
        ("v2 48k", True, "hifigan", 560, 457, 28_716_994),
        ("v2 32k", True, "hifigan", 560, 457, 28_057_538),
        ("v1 40k", True, "hifigan", 560, 457, 27_439_042),
        ("v1 48k", True, "hifigan", 619, 516, 27_479_362),
        ("v1 32k", True, "hifigan", 619, 516, 27_471_170),
        ("v2 40k", False, "hifigan", 549, 446, 27_465_920),
        ("v2 24k", True, "mrf-hifigan", 563, 460, None),
        ("v2 48k", True, "refinegan", 588, 485, 26_273_682),
    ],
)
def test_names_and_sizes_of_published_files(
    kind: str, f0: bool, decoder: Decoder, full: int, shipped: int, parameters: int | None
) -> None:
    """Counts measured on the reference implementations."""
    config = stock(kind, f0=f0, decoder=decoder)
    layout = file_layout(config)
    assert (len(file_layout(config, training=True)), len(layout)) == (full, shipped)
    if parameters is not None:
        assert sum(math.prod(shape) for shape in layout.values()) == parameters


@pytest.mark.parametrize("name", ["v2_48k_f0", "v2_48k_nof0"])
def test_names_and_shapes_of_the_goldens(name: str) -> None:
    data = golden_data.layouts()[name]
    config = SynthesizerConfig.from_list(data["config"], version="v2", f0=bool(data["f0"]))
    assert file_layout(config) == {key: tuple(shape) for key, shape in data["weight"].items()}


def test_names_of_applio_decoders() -> None:
    layout = file_layout(stock("v2 48k", decoder="mrf-hifigan"))
    assert layout["dec.mrfs.3.2.layers.1.conv2.weight_v"] == (32, 32, 11)
    assert layout["dec.upsamples.0.weight_g"] == (512, 1, 1)
    assert layout["dec.m_source.l_linear.weight"] == (1, 9)
    layout = file_layout(stock("v2 48k", decoder="refinegan"))
    assert layout["dec.m_source.merge.0.weight"] == (1, 1)
    assert layout["dec.upsample_conv_blocks.0.blocks.1.2.weight"] == (256,)
    assert layout["dec.upsample_conv_blocks.3.blocks.2.1.convs2.0.weight_v"] == (32, 32, 11)


def test_mrf_names_round_trip() -> None:
    for name in file_layout(stock("v2 48k", decoder="mrf-hifigan")):
        assert mrf.to_applio(mrf.from_applio(name, 3), 3) == name


@pytest.mark.parametrize("decoder", DECODERS)
def test_every_spelling_of_weight_norm(decoder: Decoder) -> None:
    config = small(decoder)
    state = weights(config)
    model = build(config)
    folded = fold(state, model)
    assert set(folded) == set(model.state_dict())
    new = {
        name.replace("weight_g", "parametrizations.weight.original0")
        .replace("weight_v", "parametrizations.weight.original1"): tensor.half()
        .double()
        for name, tensor in state.items()
    }
    for name, tensor in fold(new, model).items():
        assert tensor.dtype == torch.float32
        torch.testing.assert_close(tensor, folded[name], rtol=4e-3, atol=4e-3)
    plain = {mrf.to_applio(name, 3) if decoder == "mrf-hifigan" else name: tensor for name, tensor in folded.items()}
    for name, tensor in fold(plain | {"enc_q.pre.bias": torch.zeros(1)}, model).items():
        assert torch.equal(tensor, folded[name])


def test_folding_is_weight_norm() -> None:
    config = small()
    state = weights(config)
    conv = torch.nn.Conv1d(16, 16, 7)
    torch.nn.utils.parametrizations.weight_norm(conv)
    with torch.no_grad():
        conv.parametrizations.weight.original0.copy_(state["dec.resblocks.1.convs1.0.weight_g"])
        conv.parametrizations.weight.original1.copy_(state["dec.resblocks.1.convs1.0.weight_v"])
    torch.testing.assert_close(conv.weight, fold(state, build(config))["dec.resblocks.1.convs1.0.weight"])


def test_weights_that_do_not_fit_are_reported() -> None:
    config = small("mrf-hifigan")
    good, model = weights(config), build(config)

    def report(**changes: torch.Tensor | None) -> str:
        state = good | {name.replace("__", "."): tensor for name, tensor in changes.items()}
        with pytest.raises(VoiceFormatError) as caught:
            fold({name: tensor for name, tensor in state.items() if tensor is not None}, model)
        return caught.value.message

    assert "1 of 388 missing: enc_p.proj.bias" in report(enc_p__proj__bias=None)
    assert "missing: dec.upsamples.0.weight_g" in report(dec__upsamples__0__weight_g=None)
    assert "1 unexpected: dec.noise" in report(dec__noise=torch.zeros(1))
    assert "emb_g.weight is (4, 6), not (3, 6)" in report(emb_g__weight=torch.zeros(4, 6))
    assert "not dense float tensors: emb_g.weight" in report(emb_g__weight=torch.zeros(3, 6, dtype=torch.int64))
    assert "not dense float tensors: emb_g.weight" in report(emb_g__weight=torch.zeros(3, 6).to_sparse())
    assert "not finite numbers: enc_p.proj.bias" in report(enc_p__proj__bias=torch.full((16,), math.nan))
    assert "not finite numbers: dec.upsamples.0" in report(dec__upsamples__0__weight_v=torch.zeros(32, 16, 10))
    other = small("mrf-hifigan", hidden_channels=24)
    with pytest.raises(VoiceFormatError, match=r"and \d+ more"):
        fold(good, build(other))


def test_a_config_that_asks_for_too_much_is_refused() -> None:
    config = small(hidden_channels=2048, filter_channels=8192, n_layers=48, kernel_size=31)
    with pytest.raises(VoiceFormatError, match="more than"):
        fold({}, build(config))


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


@st.composite
def configs(draw: st.DrawFn) -> SynthesizerConfig:
    """Small networks of any shape that a file may describe."""
    rates = draw(st.sampled_from([(5, 4, 2, 2), (10, 8), (8, 5, 2), (3, 3, 3, 3), (20, 4, 1), (4, 5, 4)]))
    kernels = [
        rate + (rate if rate in (3, 5) and draw(st.booleans()) else 2 * draw(st.integers(0, 4))) for rate in rates
    ]
    sizes = draw(st.lists(st.sampled_from([1, 3, 5, 7, 11]), min_size=1, max_size=3))
    dilations = tuple(tuple(draw(st.lists(st.integers(1, 5), min_size=1, max_size=3))) for _ in sizes)
    decoder = draw(st.sampled_from(["hifigan", "mrf-hifigan"]))
    return small(
        decoder,
        upsample_rates=rates,
        upsample_kernel_sizes=tuple(kernels),
        sample_rate=math.prod(rates) * 100,
        resblock=draw(st.sampled_from("12")),
        resblock_kernel_sizes=tuple(sizes),
        resblock_dilation_sizes=dilations,
        uses_f0=decoder != "hifigan" or draw(st.booleans()),
    )


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


# --- voices --------------------------------------------------------------------------------------


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
