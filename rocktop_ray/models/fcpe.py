"""FCPE, "Fast Context-based Pitch Estimation" (Luo et al., torchfcpe, MIT): the network of ``fcpe_c_v001.pt``.

A stem of two convolutions, six residual convolution modules as in the Conformer (layer norm, gated pointwise
expansion, 31-tap depthwise convolution, SiLU, pointwise contraction), and a 360-way sigmoid over pitch.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

REACH = 2 + 6 * 15
"""Frames to each side that one output frame depends on, the stem's normalisation apart."""


class ConvModule(nn.Module):
    """One residual Conformer convolution module. ``[frames, dim]`` -> the same."""

    def __init__(self, dim: int, kernel: int = 31) -> None:
        super().__init__()
        inner = 2 * dim
        self.norm = nn.LayerNorm(dim)
        self.expand = nn.Linear(dim, 2 * inner)
        self.depthwise = nn.Conv1d(inner, inner, kernel, padding=kernel // 2, groups=inner)
        self.contract = nn.Linear(inner, dim)

    def forward(self, x: Tensor) -> Tensor:
        """``[.., frames, dim]`` -> ``[.., frames, dim]``, with one more dimension at most."""
        hidden = F.glu(self.expand(self.norm(x)), dim=-1)
        hidden = F.silu(self.depthwise(hidden.mT)).mT
        return x + self.contract(hidden)


class FCPE(nn.Module):
    """Log-mel to pitch salience.

    Args:
        mels: bands of the log-mel.
        dim: width of the hidden layers.
        layers: convolution modules.
        bins: pitch classes.
    """

    def __init__(self, mels: int = 128, dim: int = 512, layers: int = 6, bins: int = 360) -> None:
        super().__init__()
        self.stem_in = nn.Conv1d(mels, dim, 3, padding=1)
        self.stem_norm = nn.GroupNorm(4, dim)
        self.stem_out = nn.Conv1d(dim, dim, 3, padding=1)
        self.blocks = nn.ModuleList(ConvModule(dim) for _ in range(layers))
        self.norm = nn.LayerNorm(dim)
        self.head = nn.Linear(dim, bins)

    def forward(self, mel: Tensor) -> Tensor:
        """Log-mel ``[mels, frames]`` -> salience ``[frames, bins]`` in 0..1."""
        return torch.cat(list(self.chunks(mel)))

    def together(self, mels: Tensor) -> Tensor:
        """Log-mels of short takes ``[takes, mels, frames]`` -> salience ``[takes, frames, bins]``, as ``forward``."""
        x = self.stem_out(F.leaky_relu(self.stem_norm(self.stem_in(mels)))).mT
        for block in self.blocks:
            x = block(x)
        return torch.sigmoid(self.head(self.norm(x)))

    def chunks(self, mel: Tensor, size: int = 3000) -> Iterator[Tensor]:
        """The rows of :meth:`forward`, ``size`` frames at a time, each chunk computed with its context.

        Memory does not grow with the length, and the chunks are what one pass would give.
        """
        frames = mel.shape[1]
        scale, shift = self._stem_statistics(mel, size)
        for start in range(0, frames, size):
            stop = min(start + size, frames)
            left, right = max(0, start - REACH), min(frames, stop + REACH)
            yield self._salience(mel, left, right, scale, shift)[start - left : stop - left]

    def _stem_hidden(self, mel: Tensor, start: int, stop: int) -> Tensor:
        """Frames ``start .. stop`` of the first convolution: ``[1, dim, stop - start]``."""
        frames = mel.shape[1]
        left, right = max(0, start - 1), min(frames, stop + 1)
        window = F.pad(mel[None, :, left:right], (int(start == 0), int(stop == frames)))
        return F.conv1d(window, self.stem_in.weight, self.stem_in.bias)

    def _stem_statistics(self, mel: Tensor, chunk: int) -> tuple[Tensor, Tensor]:
        """The stem's group normalisation as a scale and a shift per channel.

        Its mean and variance run over the whole take, so they are gathered before any chunk is finished.
        """
        norm, frames = self.stem_norm, mel.shape[1]
        total = torch.zeros(norm.num_channels, dtype=torch.float64, device=mel.device)
        squares = torch.zeros_like(total)
        for start in range(0, frames, chunk):
            hidden = self._stem_hidden(mel, start, min(start + chunk, frames))[0].double()
            total += hidden.sum(1)
            squares += hidden.square().sum(1)
        count = frames * norm.num_channels / norm.num_groups
        mean = total.view(norm.num_groups, -1).sum(1) / count
        variance = squares.view(norm.num_groups, -1).sum(1) / count - mean.square()
        each = norm.num_channels // norm.num_groups
        scale = norm.weight.double() / (variance.clamp(min=0) + norm.eps).sqrt().repeat_interleave(each)
        shift = norm.bias.double() - mean.repeat_interleave(each) * scale
        return scale.float()[:, None], shift.float()[:, None]

    def _salience(self, mel: Tensor, start: int, stop: int, scale: Tensor, shift: Tensor) -> Tensor:
        hidden = F.leaky_relu(self._stem_hidden(mel, start, stop) * scale + shift)
        x = self.stem_out(hidden)[0].T
        for block in self.blocks:
            x = block(x)
        return torch.sigmoid(self.head(self.norm(x)))


def tensors_from_file(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of the published file under this module's names, weight norm folded, buffers left out.

    Raises KeyError for a tensor that is missing.
    """
    renamed = {}
    for ours, theirs in (
        ("stem_in", "input_stack.0"),
        ("stem_norm", "input_stack.1"),
        ("stem_out", "input_stack.3"),
        ("norm", "norm"),
    ):
        for kind in ("weight", "bias"):
            renamed[f"{ours}.{kind}"] = tensors[f"{theirs}.{kind}"]
    layers = len({name.split(".")[2] for name in tensors if name.startswith("net.encoder_layers.")})
    for layer in range(layers):
        theirs = f"net.encoder_layers.{layer}.conformer.net"
        for kind in ("weight", "bias"):
            for ours, place in (("norm", "0"), ("expand", "2"), ("depthwise", "4.conv"), ("contract", "6")):
                tensor = tensors[f"{theirs}.{place}.{kind}"]
                pointwise = ours in ("expand", "contract") and kind == "weight"
                renamed[f"blocks.{layer}.{ours}.{kind}"] = tensor[..., 0] if pointwise else tensor
    direction = tensors["output_proj.weight_v"]
    length = torch.linalg.vector_norm(direction, dim=1, keepdim=True)
    renamed["head.weight"] = tensors["output_proj.weight_g"] * direction / length
    renamed["head.bias"] = tensors["output_proj.bias"]
    return renamed
