"""Small HuBERT encoders in every file form, for tests."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import safetensors.torch
import torch
from torch import Tensor

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
