"""Layers that the parts of a synthesizer share."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class NormedConv1d(nn.Conv1d):
    """A convolution that voice files store under weight normalisation (``weight_g``, ``weight_v``).

    The module itself holds the plain weight; ``weights.fold`` computes it once, at load.
    """


class NormedConvTranspose1d(nn.ConvTranspose1d):
    """A transposed convolution that voice files store under weight normalisation."""


class NormedConv2d(nn.Conv2d):
    """A two-dimensional convolution that discriminator files store under weight normalisation."""


class ChannelNorm(nn.Module):
    """Layer normalisation over the channels of ``[batch, channels, frames]``."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(channels))
        self.beta = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        """``[batch, channels, frames]``, normalised per frame."""
        return F.layer_norm(x.mT, self.gamma.shape, self.gamma, self.beta).mT


def random_table(*shape: int, scale: float = 1.0) -> Tensor:
    """Normal values; left empty on the meta device, where drawing them would import torch's compiler for seconds."""
    table = torch.empty(shape)
    return table if table.is_meta else table.normal_(std=scale)


def embedding(rows: int, width: int) -> nn.Embedding:
    """An embedding that starts from normal values."""
    return nn.Embedding.from_pretrained(random_table(rows, width), freeze=False)


def masked(x: Tensor, mask: Tensor | None) -> Tensor:
    """``x * mask``; None means that every frame counts."""
    return x if mask is None else x * mask


def same_padding(kernel: int, dilation: int = 1) -> int:
    """Padding that keeps the length of an odd kernel's output."""
    return (kernel - 1) * dilation // 2
