"""HuBERT encoders: parity with the goldens from every file form, variants against plain torch, refusals."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import golden_data
import numpy as np
import pytest
import safetensors.torch
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from rocktop_ray.errors import (
    AudioError,
    ModelMissingError,
    RocktopError,
    SettingsError,
    UnsafeFileError,
    VoiceFormatError,
)
from rocktop_ray.features.content import hubert_files
from rocktop_ray.features.content.hubert import HubertEncoder
from rocktop_ray.features.content.hubert_files import read_hubert
from rocktop_ray.features.content.registry import CONTENT_ENCODERS, build_content_encoder
from rocktop_ray.models.hubert import HubertConfig
from rocktop_ray.protocols import ContentEncoder

SMALL: dict[str, Any] = {
    "model_type": "hubert",
    "hidden_size": 32,
    "num_hidden_layers": 10,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "conv_dim": [16, 24, 16, 16, 16, 16, 20],
    "num_conv_pos_embeddings": 16,
    "num_conv_pos_embedding_groups": 4,
}
FAIRSEQ_NAMES = (
    (r"^masked_spec_embed$", "mask_emb"),
    (r"conv_layers\.(\d+)\.conv\.", r"conv_layers.\1.0."),
    (r"conv_layers\.(\d+)\.layer_norm\.", r"conv_layers.\1.2."),
    (r"^feature_projection\.layer_norm\.", "layer_norm."),
    (r"^feature_projection\.projection\.", "post_extract_proj."),
    (r"pos_conv_embed\.conv\.", "pos_conv.0."),
    (r"\.attention\.", ".self_attn."),
    (r"(layers\.\d+)\.layer_norm\.", r"\1.self_attn_layer_norm."),
    (r"\.feed_forward\.intermediate_dense\.", ".fc1."),
    (r"\.feed_forward\.output_dense\.", ".fc2."),
)


def fairseq_name(name: str) -> str:
    for pattern, theirs in FAIRSEQ_NAMES:
        name = re.sub(pattern, theirs, name)
    return name


def save_fairseq(path: Path, state: dict[str, Tensor], heads: int, **settings_: Any) -> None:
    """A ``.pt`` as fairseq writes it, with a pickled object of a class that is not there when it is read."""
    names = ("fairseq", "fairseq.data", "fairseq.data.dictionary")
    for name in names:
        sys.modules[name] = ModuleType(name)
    dictionary = type("Dictionary", (), {"__module__": names[-1], "__qualname__": "Dictionary"})
    sys.modules[names[-1]].Dictionary = dictionary  # type: ignore[attr-defined]
    try:
        words = dictionary()
        words.symbols, words.indices = ["<s>", "0"], {"<s>": 0, "0": 1}
        torch.save(
            {
                "args": None,
                "cfg": {
                    "_name": None,
                    "model": {
                        "_name": "hubert",
                        "encoder_attention_heads": heads,
                        "extractor_mode": "default",
                        **settings_,
                    },
                    "task": {"_name": "hubert_pretraining", "normalize": False, "label_rate": 50, "sample_rate": 16000},
                },
                "model": {fairseq_name(name): value for name, value in state.items()}
                | {"label_embs_concat": torch.zeros(504, 256)},
                "criterion": None,
                "optimizer_history": [{"num_updates": 400_000}],
                "task_state": {"dictionaries": [words]},
                "extra_state": {"epoch": 1},
                "last_optimizer_state": None,
            },
            path,
        )
    finally:
        for name in names:
            del sys.modules[name]


def small_state(seed: int = 0, **changes: Any) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Random weights in transformers names (old weight norm) and their ``config.json``."""
    config = {**SMALL, **changes}
    torch.manual_seed(seed)
    width, wide, dims = config["hidden_size"], config["intermediate_size"], config["conv_dim"]
    kernels = config.get("conv_kernel", [10, 3, 3, 3, 3, 2, 2])
    layered = config.get("feat_extract_norm") == "layer"
    state: dict[str, Tensor] = {"masked_spec_embed": torch.rand(width)}

    def linear(name: str, out: int, inside: int) -> None:
        state[f"{name}.weight"] = torch.randn(out, inside) / inside**0.5
        state[f"{name}.bias"] = 0.1 * torch.randn(out)

    def norm(name: str, size: int) -> None:
        state[f"{name}.weight"] = 1 + 0.1 * torch.randn(size)
        state[f"{name}.bias"] = 0.1 * torch.randn(size)

    for i, (dim, kernel) in enumerate(zip(dims, kernels, strict=True)):
        inside = 1 if i == 0 else dims[i - 1]
        stem = f"feature_extractor.conv_layers.{i}"
        state[f"{stem}.conv.weight"] = 1.5 * torch.randn(dim, inside, kernel) / (inside * kernel) ** 0.5
        if config.get("conv_bias"):
            state[f"{stem}.conv.bias"] = 0.1 * torch.randn(dim)
        if layered or i == 0:
            norm(f"{stem}.layer_norm", dim)
    if config.get("feat_proj_layer_norm", True):
        norm("feature_projection.layer_norm", dims[-1])
    linear("feature_projection.projection", width, dims[-1])
    taps, groups = config["num_conv_pos_embeddings"], config["num_conv_pos_embedding_groups"]
    state["encoder.pos_conv_embed.conv.weight_v"] = torch.randn(width, width // groups, taps)
    state["encoder.pos_conv_embed.conv.weight_g"] = 0.5 + torch.rand(1, 1, taps)
    state["encoder.pos_conv_embed.conv.bias"] = 0.1 * torch.randn(width)
    norm("encoder.layer_norm", width)
    for i in range(config["num_hidden_layers"]):
        stem = f"encoder.layers.{i}"
        for letter in ("q", "k", "v", "out"):
            linear(f"{stem}.attention.{letter}_proj", width, width)
        norm(f"{stem}.layer_norm", width)
        linear(f"{stem}.feed_forward.intermediate_dense", wide, width)
        linear(f"{stem}.feed_forward.output_dense", width, wide)
        norm(f"{stem}.final_layer_norm", width)
    linear("final_proj", 12, width)
    return state, config


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


def folder(path: Path, state: dict[str, Tensor], config: dict[str, Any], *, kind: str = "bin") -> Path:
    path.mkdir(exist_ok=True)
    (path / "config.json").write_text(json.dumps(config))
    if kind == "bin":
        torch.save(state, path / "pytorch_model.bin")
    else:
        safetensors.torch.save_file(state, path / "model.safetensors")
    return path


def audio(samples: int = 24_000, seed: int = 0) -> np.ndarray:
    return (0.3 * np.random.default_rng(seed).standard_normal(samples)).astype(np.float32)


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


# --- refusals ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "bad", [np.zeros(399, np.float32), np.zeros((1, 800), np.float32), np.full(800, np.inf, np.float32)]
)
def test_bad_audio_is_refused(bad: np.ndarray, tmp_path: Path) -> None:
    state, config = small_state()
    with pytest.raises(AudioError):
        HubertEncoder.load(folder(tmp_path / "m", state, config)).encode(bad)


def test_v1_without_its_projection_is_refused(tmp_path: Path) -> None:
    state, config = small_state()
    bare = {name: value for name, value in state.items() if not name.startswith("final_proj")}
    path = folder(tmp_path / "m", bare, config)
    assert HubertEncoder.load(path).spec.dim == 32
    with pytest.raises(VoiceFormatError, match="final_proj"):
        HubertEncoder.load(path, version="v1")


def test_v1_needs_nine_layers(tmp_path: Path) -> None:
    state, config = small_state(num_hidden_layers=4)
    with pytest.raises(VoiceFormatError, match="4 layers"):
        HubertEncoder.load(folder(tmp_path / "m", state, config), version="v1")


def drop(name: str) -> Callable[[dict[str, Tensor], dict[str, Any]], Any]:
    return lambda state, config: state.pop(name)


WRONG: dict[str, tuple[Callable[[dict[str, Tensor], dict[str, Any]], Any], str]] = {
    "missing": (drop("encoder.layers.3.feed_forward.output_dense.bias"), r"1 missing \(layers.3.ffn_out.bias\)"),
    "no query": (drop("encoder.layers.3.attention.q_proj.weight"), "layers.3.qkv.weight|layers.3.k.weight"),
    "no key": (drop("encoder.layers.3.attention.k_proj.weight"), "query, key and value"),
    "shape": (
        lambda s, c: s.update({"encoder.layer_norm.bias": torch.zeros(31)}),
        r"norm.bias is \(31,\), expected \(32,\)",
    ),
    "fewer layers said": (lambda s, c: c.update(num_hidden_layers=9), "12 left over|left over"),
    "another model": (lambda s, c: s.update({"decoder.block.weight": torch.zeros(2)}), "decoder.block.weight"),
    "no projection": (drop("feature_projection.projection.weight"), "not a HuBERT"),
    "heads": (lambda s, c: c.update(num_attention_heads=5), "no HuBERT can have"),
    "huge": (lambda s, c: c.update(num_hidden_layers=10**9), "no HuBERT can have"),
    "text as size": (lambda s, c: c.update(hidden_size="x"), "no HuBERT can have"),
    "zero stride": (lambda s, c: c.update(conv_stride=[5, 2, 2, 2, 2, 2, 0]), "no HuBERT can have"),
    "activation": (lambda s, c: c.update(hidden_act="relu"), "only gelu"),
    "norm shapes": (
        lambda s, c: s.update({"encoder.pos_conv_embed.conv.weight_g": torch.zeros(3, 3, 3)}),
        "weight norm of shapes",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_files_that_do_not_fit_are_reported(name: str, tmp_path: Path) -> None:
    state, config = small_state()
    change, words = WRONG[name]
    change(state, config)
    with pytest.raises(VoiceFormatError, match=words):
        HubertEncoder.load(folder(tmp_path / "m", state, config))


def test_missing_pieces_are_named(tmp_path: Path) -> None:
    with pytest.raises(ModelMissingError, match="no content encoder"):
        read_hubert(tmp_path / "nothing.pt")
    with pytest.raises(ModelMissingError, match=r"model\.safetensors"):
        read_hubert(tmp_path)
    state, config = small_state()
    (folder(tmp_path / "m", state, config) / "config.json").unlink()
    with pytest.raises(VoiceFormatError, match=r"config\.json is missing"):
        read_hubert(tmp_path / "m")
    (tmp_path / "m" / "config.json").write_text("[1]")
    with pytest.raises(VoiceFormatError, match="not a transformers configuration"):
        read_hubert(tmp_path / "m")


class Bomb:
    """Asks the reader to write a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


def test_a_file_that_asks_for_code_is_refused(tmp_path: Path) -> None:
    state, _ = small_state()
    torch.save({"model": state, "task_state": Bomb(tmp_path / "fired")}, tmp_path / "h.pt")
    with pytest.raises(UnsafeFileError):
        HubertEncoder.load(tmp_path / "h.pt")
    assert not (tmp_path / "fired").exists()


@pytest.mark.parametrize(
    "text", ["(512,10,5)", "[(512,10,5)] * 99999", "x" * 5000, "[(512, 10, 5)] + [(512, 3, 2)]*4 + [(512,2,2)] * 2"]
)
def test_strides_are_read_without_evaluation(text: str) -> None:
    strides = hubert_files._strides(text)
    assert strides is None or len(strides) <= 100
    if text.endswith("* 2"):
        assert strides == (5, 2, 2, 2, 2, 2, 2)


@given(data=st.data())
@settings(deadline=None, max_examples=25)
def test_broken_configurations_never_crash(data: st.DataObject, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.getbasetemp() / "fuzz"
    state, config = small_state(num_hidden_layers=1)
    key = data.draw(st.sampled_from([*SMALL, "conv_kernel", "conv_stride", "layer_norm_eps", "feat_extract_norm"]))
    config[key] = data.draw(
        st.one_of(st.integers(-5, 10**12), st.text(max_size=5), st.floats(), st.lists(st.integers(-2, 600), max_size=9))
    )
    try:
        HubertEncoder.load(folder(path, state, config)).encode(audio(4000))
    except RocktopError as error:
        assert error.message


def test_registry_refuses_unknown_names_and_says_what_to_fetch(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("ROCKTOP_HOME", str(tmp_path))
    with pytest.raises(SettingsError, match=", ".join(CONTENT_ENCODERS)):
        build_content_encoder("hubert-v3")
    with pytest.raises(ModelMissingError, match="rocktop models fetch hubert_base"):
        build_content_encoder("hubert-v2")
    with pytest.raises(ModelMissingError, match="rocktop models fetch whisper-base-encoder"):
        build_content_encoder("whisper-base")
    with pytest.raises(SettingsError):
        HubertEncoder({}, replace(HubertConfig(), hidden_size=2), version="v3")  # type: ignore[arg-type]
