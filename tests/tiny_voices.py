"""RVC files with very small networks, so that tests of formats are fast."""

from __future__ import annotations

from typing import Any

import torch

from rocktop_ray.models.rvc.config import SynthesizerConfig
from rocktop_ray.models.rvc.weights import file_layout


def tiny_config(**changes: Any) -> SynthesizerConfig:
    values: dict[str, Any] = {
        "spec_channels": 5,
        "segment_size": 32,
        "inter_channels": 4,
        "hidden_channels": 4,
        "filter_channels": 4,
        "n_heads": 2,
        "n_layers": 1,
        "kernel_size": 3,
        "p_dropout": 0,
        "resblock": "1",
        "resblock_kernel_sizes": (3,),
        "resblock_dilation_sizes": ((1, 3),),
        "upsample_rates": (10, 8),
        "upsample_initial_channel": 8,
        "upsample_kernel_sizes": (20, 16),
        "speakers": 3,
        "gin_channels": 4,
        "sample_rate": 8000,
        "content_dim": 256,
    }
    return SynthesizerConfig(**{**values, **changes})


def tiny_state(config: SynthesizerConfig, seed: int = 0, training: bool = False) -> dict[str, torch.Tensor]:
    random = torch.Generator().manual_seed(seed)
    layout = file_layout(config, training=training)
    return {name: torch.randn(shape, generator=random).mul(0.3).half() for name, shape in layout.items()}


def tiny_file(config: SynthesizerConfig | None = None, seed: int = 0, **changes: Any) -> dict[str, Any]:
    """The dictionary of a small ``.pth``."""
    config = config or tiny_config()
    return {
        "weight": tiny_state(config, seed),
        "config": config.to_list(),
        "info": "7epoch",
        "sr": "8k",
        "f0": int(config.uses_f0),
        "version": "v1" if config.content_dim == 256 else "v2",
        **changes,
    }
