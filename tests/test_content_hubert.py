"""HuBERT encoders: parity with the goldens from every file form, variants against plain torch."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import golden_data
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small_hubert import SMALL, audio, folder, save_fairseq, small_state
from torch import Tensor
from torch.nn import functional as F

from rocktop_ray.features.content.hubert import HubertEncoder
from rocktop_ray.features.content.registry import build_content_encoder
from rocktop_ray.models.hubert import HubertConfig
from rocktop_ray.protocols import ContentEncoder


def reference(state: dict[str, Tensor], config: dict[str, Any], audio: np.ndarray, layer: int) -> np.ndarray:
    """Hidden state ``layer`` in float64, step by step with torch's own convolutions and norms."""
    get = {name: value.double() for name, value in state.items()}
    stable, layered = config.get("do_stable_layer_norm", False), config.get("feat_extract_norm") == "layer"

    def norm(x: Tensor, name: str) -> Tensor:
        return F.layer_norm(x, x.shape[-1:], get[f"{name}.weight"], get[f"{name}.bias"])

    def linear(x: Tensor, name: str) -> Tensor:
        return F.linear(x, get[f"{name}.weight"], get[f"{name}.bias"])

    x = torch.from_numpy(audio).double()[None, None]
    for i, stride in enumerate(config.get("conv_stride", [5, 2, 2, 2, 2, 2, 2])):
        stem = f"feature_extractor.conv_layers.{i}"
        x = F.conv1d(x, get[f"{stem}.conv.weight"], get.get(f"{stem}.conv.bias"), stride)
        if layered:
            x = norm(x.transpose(1, 2), f"{stem}.layer_norm").transpose(1, 2)
        elif i == 0:
            x = F.group_norm(x, x.shape[1], get[f"{stem}.layer_norm.weight"], get[f"{stem}.layer_norm.bias"])
        x = F.gelu(x)
    x = x.transpose(1, 2)
    if "feature_projection.layer_norm.weight" in get:
        x = norm(x, "feature_projection.layer_norm")
    x = linear(x, "feature_projection.projection")
    g, v = get["encoder.pos_conv_embed.conv.weight_g"], get["encoder.pos_conv_embed.conv.weight_v"]
    weight = g * v / v.pow(2).sum((0, 1), keepdim=True).sqrt()
    taps = weight.shape[2]
    y = F.conv1d(
        x.transpose(1, 2), weight, get["encoder.pos_conv_embed.conv.bias"], padding=taps // 2,
        groups=config["num_conv_pos_embedding_groups"],
    )  # fmt: skip
    x = x + F.gelu(y[..., : x.shape[1]]).transpose(1, 2)
    if not stable:
        x = norm(x, "encoder.layer_norm")
    for i in range(layer):
        stem = f"encoder.layers.{i}"

        def attend(x: Tensor, stem: str = stem) -> Tensor:
            heads = config["num_attention_heads"]
            q, k, v = (
                linear(x, f"{stem}.attention.{n}_proj")[0].unflatten(1, (heads, -1)).transpose(0, 1) for n in "qkv"
            )
            weights = (q @ k.transpose(1, 2) / q.shape[-1] ** 0.5).softmax(-1)
            return linear((weights @ v).transpose(0, 1).flatten(1)[None], f"{stem}.attention.out_proj")

        def feed(x: Tensor, stem: str = stem) -> Tensor:
            inner = F.gelu(linear(x, f"{stem}.feed_forward.intermediate_dense"))
            return linear(inner, f"{stem}.feed_forward.output_dense")

        if stable:
            x = x + attend(norm(x, f"{stem}.layer_norm"))
            x = x + feed(norm(x, f"{stem}.final_layer_norm"))
        else:
            x = norm(x + attend(x), f"{stem}.layer_norm")
            x = norm(x + feed(x), f"{stem}.final_layer_norm")
    if stable and layer == config["num_hidden_layers"]:
        x = norm(x, "encoder.layer_norm")
    return x[0].numpy()


def agrees(ours: np.ndarray, expected: np.ndarray, tolerance: float = 2e-5) -> None:
    assert ours.shape == expected.shape
    assert np.abs(ours - expected).max() <= tolerance * np.abs(expected).max()


@pytest.fixture(scope="module")
def golden() -> tuple[np.ndarray, np.ndarray]:
    case = golden_data.case("v2_48k_f0")
    return case["audio_pad"].astype(np.float32), case["hubert"][0]


# --- parity with the peer ----------------------------------------------------------------------------------------


def test_golden_from_the_transformers_folder(golden: tuple[np.ndarray, np.ndarray]) -> None:
    encoder = build_content_encoder("hubert-v2", path=golden_data.hubert_folder())
    assert isinstance(encoder, ContentEncoder)
    assert (encoder.spec.name, encoder.spec.dim) == ("hubert-v2", 768)
    agrees(encoder.encode(golden[0]), golden[1], 1e-4)


def test_golden_from_a_fairseq_file(golden: tuple[np.ndarray, np.ndarray]) -> None:
    state = golden_data.hubert_state()
    layers = "[(512,10,5)] + [(512,3,2)] * 4 + [(512,2,2)] * 2"
    path = golden_data.build("hubert_fairseq.pt", lambda p: save_fairseq(p, state, 12, conv_feature_layers=layers))
    agrees(HubertEncoder.load(path).encode(golden[0]), golden[1], 1e-4)


def test_golden_v1_from_layer_9(golden: tuple[np.ndarray, np.ndarray]) -> None:
    state = golden_data.hubert_state()
    config = {**SMALL, "hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12,
              "num_conv_pos_embeddings": 128, "num_conv_pos_embedding_groups": 16}  # fmt: skip
    part = golden[0][:16_000]
    hidden = torch.from_numpy(reference(state, config, part, 9))
    expected = F.linear(hidden, state["final_proj.weight"].double(), state["final_proj.bias"].double()).numpy()
    encoder = build_content_encoder("hubert-v1", path=golden_data.hubert_folder())
    assert (encoder.spec.name, encoder.spec.dim) == ("hubert-v1", 256)
    agrees(encoder.encode(part), expected)


# --- other configurations ----------------------------------------------------------------------------------------

VARIANTS = {
    "base": {},
    "wide": {"hidden_size": 48, "num_attention_heads": 6, "conv_dim": [8] * 7},
    "large": {"feat_extract_norm": "layer", "do_stable_layer_norm": True, "conv_bias": True},
    "biased": {"conv_bias": True},
    "no norm before the projection": {"feat_proj_layer_norm": False},
    "odd positions": {"num_conv_pos_embeddings": 15, "num_conv_pos_embedding_groups": 2},
    "short front end": {"conv_dim": [16, 12, 8], "conv_kernel": [10, 5, 4], "conv_stride": [5, 4, 3]},
}


@pytest.mark.parametrize("name", VARIANTS)
def test_variants_agree_with_plain_torch(name: str, tmp_path: Path) -> None:
    state, config = small_state(**VARIANTS[name])
    encoder = HubertEncoder.load(folder(tmp_path / "m", state, config))
    agrees(encoder.encode(audio()), reference(state, config, audio(), 10))
    v1 = HubertEncoder.load(tmp_path / "m", version="v1")
    hidden = torch.from_numpy(reference(state, config, audio(), 9))
    expected = F.linear(hidden, state["final_proj.weight"].double(), state["final_proj.bias"].double()).numpy()
    assert v1.spec.dim == 12
    agrees(v1.encode(audio()), expected)


@pytest.mark.parametrize("name", ["base", "large", "wide"])
def test_fairseq_and_transformers_agree(name: str, tmp_path: Path) -> None:
    state, config = small_state(**VARIANTS[name])
    if name == "large":
        state = {re.sub(r"(conv_layers\.\d+)\.layer_norm\.", r"\1.2.1.", key): value for key, value in state.items()}
    save_fairseq(
        tmp_path / "h.pt",
        state,
        config["num_attention_heads"],
        layer_norm_first=config.get("do_stable_layer_norm", False),
    )
    state, config = small_state(**VARIANTS[name])
    same = HubertEncoder.load(folder(tmp_path / "m", state, config))
    assert np.array_equal(HubertEncoder.load(tmp_path / "h.pt").encode(audio()), same.encode(audio()))


@pytest.mark.parametrize("kind", ["bin", "safetensors"])
@pytest.mark.parametrize("prefix", ["", "hubert."])
@pytest.mark.parametrize("new_norm", [False, True])
def test_file_forms_agree(kind: str, prefix: str, new_norm: bool, tmp_path: Path) -> None:
    state, config = small_state()
    plain = HubertEncoder.load(folder(tmp_path / "plain", state, config)).encode(audio())
    names = {"weight_g": "parametrizations.weight.original0", "weight_v": "parametrizations.weight.original1"}
    changed = {}
    for name, value in state.items():
        stem, _, leaf = name.rpartition(".")
        name = f"{stem}.{names[leaf]}" if new_norm and leaf in names else name
        changed[name if name.startswith("final_proj") else prefix + name] = value
    other = HubertEncoder.load(folder(tmp_path / "other", changed, config, kind=kind))
    assert np.array_equal(other.encode(audio()), plain)


def test_half_precision_files_are_computed_in_float32(tmp_path: Path) -> None:
    state, config = small_state()
    half = {name: value.half() for name, value in state.items()}
    encoder = HubertEncoder.load(folder(tmp_path / "m", half, config))
    assert encoder.encode(audio()).dtype == np.float32
    agrees(encoder.encode(audio()), reference(half, config, audio(), 10))


def test_tiles_do_not_show(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    state, config = small_state()
    encoder = HubertEncoder.load(folder(tmp_path / "m", state, config))
    whole = encoder.encode(audio(64_000))
    monkeypatch.setattr("rocktop_ray.models.hubert._TILE", 7)
    agrees(encoder.encode(audio(64_000)), whole, 1e-5)


@given(st.integers(1, 20_000))
@settings(deadline=None, max_examples=50)
def test_frame_count_is_the_published_one(samples: int) -> None:
    config = HubertConfig()
    assert config.receptive_field == 400
    assert max(config.frames(samples), 0) == max((samples - 400) // 320 + 1, 0)


def test_loud_and_silent_takes_stay_finite(tmp_path: Path) -> None:
    state, config = small_state()
    encoder = HubertEncoder.load(folder(tmp_path / "m", state, config))
    assert np.isfinite(encoder.encode(np.zeros(800, np.float32))).all()
    assert np.isfinite(encoder.encode(np.full(800, 0.5, np.float32))).all()
    assert encoder.encode(audio(400)).shape == (1, 32)
