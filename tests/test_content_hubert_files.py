"""HuBERT files that do not fit, and audio that is none."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small_hubert import SMALL, audio, folder, small_state
from torch import Tensor

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
