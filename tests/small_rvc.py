"""Small RVC synthesizers with random weights, for tests."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import cache
from typing import Any

import golden_data
import numpy as np
import torch
from hypothesis import strategies as st

from rocktop_ray.models.rvc.config import Decoder, SynthesizerConfig
from rocktop_ray.models.rvc.voice import RvcVoice
from rocktop_ray.models.rvc.weights import file_layout

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
