"""HuBERT weights as they are published: the fairseq ``.pt`` and the transformers folder, mapped to our names.

fairseq: a dictionary with ``model`` (weights) and ``cfg`` or ``args``. transformers: ``config.json`` beside
``pytorch_model.bin`` or ``model.safetensors``, names with or without the prefix ``hubert.``. Weights may be float16;
weight norm is stored as ``weight_g``/``weight_v`` or as ``parametrizations.weight.original0``/``1``, and is folded.
Training-only tensors (masks, label embeddings) are ignored. No file can run code (``voices.safe_load``).
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rocktop_ray.errors import ModelMissingError, VoiceFormatError
from rocktop_ray.models.hubert import HubertConfig
from rocktop_ray.voices.safe_load import Inert, is_safetensors, load_pickle_tensors, load_safetensors

State = dict[str, Tensor]

_IGNORED = re.compile(
    r"^(masked_spec_embed|mask_emb|label_embs_concat|target_glu\..*|lm_head\..*|.*\.num_batches_tracked)$"
)
_RENAMES = tuple(
    (re.compile(pattern), ours)
    for pattern, ours in (
        # transformers
        (r"feature_extractor\.conv_layers\.(\d+)\.conv\.", r"front_end.convolutions.\1."),
        (r"feature_extractor\.conv_layers\.(\d+)\.layer_norm\.", r"front_end.convolutions.\1.norm."),
        (r"feature_projection\.layer_norm\.", "feature_norm."),
        (r"feature_projection\.projection\.", "projection."),
        (r"encoder\.pos_conv_embed\.conv\.", "positions.conv."),
        (r"encoder\.layers\.(\d+)\.attention\.out_proj\.", r"layers.\1.out."),
        (r"encoder\.layers\.(\d+)\.attention\.([qkv])_proj\.", r"layers.\1.\2."),
        (r"encoder\.layers\.(\d+)\.layer_norm\.", r"layers.\1.attention_norm."),
        (r"encoder\.layers\.(\d+)\.feed_forward\.intermediate_dense\.", r"layers.\1.ffn_in."),
        (r"encoder\.layers\.(\d+)\.feed_forward\.output_dense\.", r"layers.\1.ffn_out."),
        (r"encoder\.layers\.(\d+)\.final_layer_norm\.", r"layers.\1.ffn_norm."),
        # fairseq
        (r"feature_extractor\.conv_layers\.(\d+)\.0\.", r"front_end.convolutions.\1."),
        (r"feature_extractor\.conv_layers\.(\d+)\.2\.1\.", r"front_end.convolutions.\1.norm."),
        (r"feature_extractor\.conv_layers\.(\d+)\.2\.", r"front_end.convolutions.\1.norm."),
        (r"layer_norm\.", "feature_norm."),
        (r"post_extract_proj\.", "projection."),
        (r"encoder\.pos_conv\.0\.", "positions.conv."),
        (r"encoder\.layers\.(\d+)\.self_attn\.out_proj\.", r"layers.\1.out."),
        (r"encoder\.layers\.(\d+)\.self_attn\.([qkv])_proj\.", r"layers.\1.\2."),
        (r"encoder\.layers\.(\d+)\.self_attn_layer_norm\.", r"layers.\1.attention_norm."),
        (r"encoder\.layers\.(\d+)\.fc1\.", r"layers.\1.ffn_in."),
        (r"encoder\.layers\.(\d+)\.fc2\.", r"layers.\1.ffn_out."),
        # both
        (r"encoder\.layer_norm\.", "norm."),
        (r"final_proj\.", "final_proj."),
    )
)
_LAYER_WEIGHT = re.compile(r"layers\.\d+\.(q|k|v|qkv|out|ffn_in|ffn_out)\.weight")
"""Most of the memory: kept in float16 or bfloat16 if published so (see ``models.hubert.StoredLinear``)."""
_BASE_STRIDES: dict[tuple[int, ...], tuple[int, ...]] = {(10, 3, 3, 3, 3, 2, 2): (5, 2, 2, 2, 2, 2, 2)}


def read_hubert(path: str | Path) -> tuple[State, HubertConfig]:
    """Weights in our names and sizes, from a fairseq ``.pt``, a transformers folder or a file inside one.

    Raises ModelMissingError if nothing is there, VoiceFormatError if it is not a HuBERT, UnsafeFileError if it asks
    for code.
    """
    path = Path(path)
    if path.is_dir():
        path = _weights_in(path)
    elif not path.is_file():
        raise ModelMissingError(f"no content encoder at {path}", stage="content")
    if is_safetensors(path):
        raw: dict[Any, Any] = load_safetensors(path)[0]
    else:
        raw = load_pickle_tensors(path, skip=("optimizer_history", "last_optimizer_state", "extra_state"))
    if "model" in raw:
        return _from_fairseq(raw, path)
    config_file = path.parent / "config.json"
    if not config_file.is_file():
        raise VoiceFormatError(f"{path.name}: config.json is missing beside it (transformers folder)", stage="content")
    state = rename(raw, path.name)
    return state, _transformers_config(config_file, state)


def rename(raw: Mapping[Any, Any], where: str) -> State:
    """Published names and layouts -> ours: weight norm folded; query, key and value in one.

    Float32, but for the layers' matrices, which stay in half precision if they are published in it.

    Raises VoiceFormatError on names that no HuBERT has.
    """
    found: State = {}
    unknown = []
    for name, value in raw.items():
        plain = str(name).removeprefix("hubert.")
        if not isinstance(value, Tensor) or _IGNORED.match(plain):
            continue
        for pattern, ours in _RENAMES:
            renamed, hits = pattern.subn(ours, plain, count=1) if pattern.match(plain) else (plain, 0)
            if hits:
                found[renamed] = value if value.itemsize == 2 and _LAYER_WEIGHT.fullmatch(renamed) else value.float()
                break
        else:
            unknown.append(plain)
    if unknown or "projection.weight" not in found:
        listed = ", ".join(sorted(unknown)[:4]) or "no projection"
        raise VoiceFormatError(f"{where}: not a HuBERT: {len(unknown)} unknown tensors ({listed})", stage="content")
    for name in found:
        if re.fullmatch(r"front_end\.convolutions\.\d+\.weight", name) and found[name].ndim == 3:
            found[name] = found[name].permute(2, 1, 0).contiguous()  # [width, channels, kernel] -> ours
    return _join_attention(_fold_weight_norm(found, where), where)


def _fold_weight_norm(state: State, where: str) -> State:
    """``w = g * v / |v|``, the norm taken over the dimensions that ``g`` does not have."""
    stem = "positions.conv."
    for gain, direction in (
        ("weight_g", "weight_v"),
        ("parametrizations.weight.original0", "parametrizations.weight.original1"),
    ):
        if stem + gain in state and stem + direction in state:
            g, v = state.pop(stem + gain), state.pop(stem + direction)
            if g.ndim != v.ndim or any(a not in (1, b) for a, b in zip(g.shape, v.shape, strict=False)):
                raise VoiceFormatError(
                    f"{where}: weight norm of shapes {tuple(g.shape)} and {tuple(v.shape)}", stage="content"
                )
            dims = [i for i, size in enumerate(g.shape) if size == 1]
            state[stem + "weight"] = v * (g / v.norm(dim=dims, keepdim=True))
    return state


def _join_attention(state: State, where: str) -> State:
    for name in [name for name in state if re.fullmatch(r"layers\.\d+\.q\.(weight|bias)", name)]:
        parts = [name.replace(".q.", f".{letter}.") for letter in "qkv"]
        missing = [part for part in parts if part not in state]
        if missing or len({state[part].shape for part in parts}) != 1:
            raise VoiceFormatError(f"{where}: query, key and value of {name} do not match", stage="content")
        state[name.replace(".q.", ".qkv.")] = torch.cat([state.pop(part) for part in parts])
    return state


def _weights_in(folder: Path) -> Path:
    for name in ("model.safetensors", "pytorch_model.bin"):
        if (folder / name).is_file():
            return folder / name
    raise ModelMissingError(f"no model.safetensors or pytorch_model.bin in {folder}", stage="content")


def _transformers_config(path: Path, state: State) -> HubertConfig:
    """The sizes in ``config.json``; the final projection is there if its weights are."""
    try:
        given = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(given, dict):
            raise ValueError("not an object")
        known = {field.name: given[field.name] for field in fields(HubertConfig) if given.get(field.name) is not None}
        for name in ("conv_dim", "conv_kernel", "conv_stride"):
            if name in known:
                known[name] = tuple(int(value) for value in known[name])
        projection = state.get("final_proj.weight")
        known["classifier_proj_size"] = None if projection is None else projection.shape[0]
        config = HubertConfig(**known)
    except (ValueError, TypeError, OSError) as error:
        raise VoiceFormatError(f"{path}: not a transformers configuration ({error})", stage="content") from error
    for name in ("hidden_act", "feat_extract_activation"):
        if given.get(name, "gelu") != "gelu":
            raise VoiceFormatError(f"{path}: {name} {given[name]!r} is not supported, only gelu", stage="content")
    if given.get("conv_pos_batch_norm"):
        raise VoiceFormatError(f"{path}: conv_pos_batch_norm is not supported", stage="content")
    _check(config, str(path))
    return config


def _from_fairseq(raw: Mapping[Any, Any], path: Path) -> tuple[State, HubertConfig]:
    """fairseq: sizes from the tensors; heads, strides and order of norms from ``cfg['model']`` or ``args`` if said."""
    weights = raw["model"]
    if not isinstance(weights, dict):
        raise VoiceFormatError(f"{path.name}: 'model' is no dictionary of tensors", stage="content")
    state = rename(weights, path.name)
    settings = {**_plain(raw.get("args")), **_plain(_plain(raw.get("cfg")).get("model"))}
    convs = [state[name] for i in range(len(state)) if (name := f"front_end.convolutions.{i}.weight") in state]
    layers = len({name.split(".")[1] for name in state if name.startswith("layers.")})
    position = state.get("positions.conv.weight")
    if not convs or not layers or position is None or any(conv.ndim != 3 for conv in [*convs, position]):
        raise VoiceFormatError(f"{path.name}: not a HuBERT: no convolutions, positions or layers", stage="content")
    width = state["projection.weight"].shape[0]
    kernels = tuple(conv.shape[0] for conv in convs)
    strides = _strides(settings.get("conv_feature_layers")) or _BASE_STRIDES.get(kernels)
    if strides is None or len(strides) != len(convs):
        raise VoiceFormatError(f"{path.name}: the strides of its convolutions are not said", stage="content")
    projection = state.get("final_proj.weight")
    config = HubertConfig(
        hidden_size=width,
        num_hidden_layers=layers,
        num_attention_heads=_integer(settings.get("encoder_attention_heads"), max(1, width // 64)),
        intermediate_size=state.get("layers.0.ffn_in.weight", torch.empty(0)).shape[0],
        conv_dim=tuple(conv.shape[2] for conv in convs),
        conv_kernel=kernels,
        conv_stride=strides,
        conv_bias="front_end.convolutions.0.bias" in state,
        feat_extract_norm="layer" if "front_end.convolutions.1.norm.weight" in state else "group",
        feat_proj_layer_norm="feature_norm.weight" in state,
        num_conv_pos_embeddings=position.shape[2],
        num_conv_pos_embedding_groups=max(1, width // max(1, position.shape[1])),
        do_stable_layer_norm=settings.get("layer_norm_first") is True,
        classifier_proj_size=None if projection is None else projection.shape[0],
    )
    _check(config, path.name)
    return state, config


def _plain(value: Any) -> dict[Any, Any]:
    """A dictionary, or the state of an inert object (a namespace), or nothing."""
    if isinstance(value, Inert):
        value = value.state
    return value if isinstance(value, dict) else {}


def _integer(value: Any, default: int) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) else default


def _strides(text: Any) -> tuple[int, ...] | None:
    """The strides in fairseq's ``[(512,10,5)] + [(512,3,2)] * 4``, without evaluating it."""
    if not isinstance(text, str) or len(text) > 1000:
        return None
    strides: list[int] = []
    for _, _, stride, times in re.findall(
        r"\(\s*(\d+)\s*,\s*(\d+)\s*,\s*(\d+)\s*,?\s*\)\s*\]?\s*(?:\*\s*(\d{1,2}))?", text
    ):
        strides += [int(stride)] * int(times or 1)
    return tuple(strides) or None


def _check(config: HubertConfig, where: str) -> None:
    """Bounds that keep a wrong file from taking the memory of the machine or dividing by zero."""
    sizes = (
        config.hidden_size,
        config.num_attention_heads,
        config.intermediate_size,
        config.num_conv_pos_embedding_groups,
    )
    lists = (config.conv_dim, config.conv_kernel, config.conv_stride)
    fine = (
        all(isinstance(size, int) and 1 <= size <= 16384 for size in (*sizes, config.num_conv_pos_embeddings))
        and isinstance(config.num_hidden_layers, int)
        and 1 <= config.num_hidden_layers <= 128
        and len({len(values) for values in lists}) == 1
        and 1 <= len(config.conv_dim) <= 32
        and all(1 <= value <= 16384 for values in lists for value in values)
        and config.hidden_size % config.num_attention_heads == 0
        and config.hidden_size % config.num_conv_pos_embedding_groups == 0
        and config.feat_extract_norm in ("group", "layer")
        and isinstance(config.layer_norm_eps, float)
    )
    if not fine:
        raise VoiceFormatError(f"{where}: sizes that no HuBERT can have: {config}", stage="content")
