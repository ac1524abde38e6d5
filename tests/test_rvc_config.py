"""Configurations and weight files of RVC synthesizers."""

from __future__ import annotations

import json
import math
from typing import Any

import golden_data
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small_rvc import DECODERS, V2_48K, small, stock, weights

from rocktop_ray.errors import VoiceFormatError
from rocktop_ray.models.rvc import mrf
from rocktop_ray.models.rvc.config import Decoder, SynthesizerConfig
from rocktop_ray.models.rvc.synthesizer import build
from rocktop_ray.models.rvc.weights import file_layout, fold

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
