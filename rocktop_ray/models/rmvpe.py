"""RMVPE (Wei et al. 2023, "Robust Model for Vocal Pitch Estimation"): the network of ``rmvpe.pt``, for inference.

A residual U-Net over (time, mel band), a 3-channel convolution, a bidirectional GRU and a 360-way sigmoid. Batch norms
are folded into the convolutions when the file is read. Activations are channels-last, time first in memory, and each
level of the U-Net is computed in tiles of time with the context that its convolutions need: the result is that of one
pass, with less memory and less traffic to it.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

STRIDE = 32
"""The number of frames must be a multiple of this."""
_TILE_FLOATS = 1 << 20


class Residual(nn.Module):
    """Two 3x3 convolutions with ReLU, and a shortcut. ``[1, channels_in, frames, bands]`` -> ``channels_out``."""

    def __init__(self, channels_in: int, channels_out: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels_in, channels_out, 3, padding=1)
        self.second = nn.Conv2d(channels_out, channels_out, 3, padding=1)
        self.shortcut = nn.Conv2d(channels_in, channels_out, 1) if channels_in != channels_out else None

    def forward(self, x: Tensor) -> Tensor:
        """``[1, channels_in, frames, bands]`` -> ``[1, channels_out, frames, bands]``."""
        out = self.second(self.first(x).relu_()).relu_()
        return out.add_(x if self.shortcut is None else self.shortcut(x))


class Stage(nn.Module):
    """A chain of residual blocks at one resolution, computed in tiles of time."""

    def __init__(self, channels_in: int, channels_out: int, blocks: int = 4) -> None:
        super().__init__()
        widths = [channels_in] + [channels_out] * (blocks - 1)
        self.blocks = nn.Sequential(*(Residual(width, channels_out) for width in widths))
        self.channels = channels_out
        self.reach = 2 * blocks
        self.widest = max(channels_in, channels_out)

    def forward(self, x: Tensor) -> Tensor:
        """``[1, channels_in, frames, bands]`` -> ``[1, channels_out, frames, bands]``."""
        shape = (1, self.channels, *x.shape[2:])
        out = torch.empty(shape, dtype=x.dtype, device=x.device, memory_format=torch.channels_last)
        for left, start, stop, right in self.tiles(*x.shape[2:]):
            out[:, :, start:stop] = self.blocks(x[:, :, left:right])[:, :, start - left : stop - left]
        return out

    def tiles(self, frames: int, bands: int) -> list[tuple[int, int, int, int]]:
        """Tiles ``(left, start, stop, right)`` that cover ``frames``: start..stop with its context left..right."""
        size = max(4 * self.reach, _TILE_FLOATS // (self.widest * bands))
        count = max(1, round(frames / size))
        edges = [frames * part // count for part in range(count + 1)]
        return [(max(0, a - self.reach), a, b, min(frames, b + self.reach)) for a, b in pairwise(edges)]


class Decoder(nn.Module):
    """Twice the resolution, the encoder's activations beside it, and a chain of residual blocks."""

    def __init__(self, channels_in: int, channels_out: int) -> None:
        super().__init__()
        self.up = nn.ConvTranspose2d(channels_in, channels_out, 3, stride=2, padding=1, output_padding=1)
        self.stage = Stage(2 * channels_out, channels_out)

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        """``[1, channels_in, frames, bands]``, skip ``[1, channels_out, 2 frames, 2 bands]`` -> shape of the skip."""
        out = torch.empty_like(skip)
        for left, start, stop, right in self.stage.tiles(*skip.shape[2:]):
            low = left // 2
            # frame 2 i + 1 is made of frames i and i + 1
            raised = self.up(x[:, :, low : right // 2 + 1]).relu_()[:, :, left - 2 * low :][:, :, : right - left]
            tile = self.stage.blocks(torch.cat([raised, skip[:, :, left:right]], dim=1))
            out[:, :, start:stop] = tile[:, :, start - left : stop - left]
        return out


class RMVPE(nn.Module):
    """Log-mel to pitch salience.

    Args:
        channels: width of the first level; each of the five levels doubles it.
        levels: levels of the U-Net.
        inner: chains of residual blocks at the lowest resolution.
        bands: mel bands.
        bins: pitch classes.
        hidden: width of the GRU, per direction.
    """

    input_scale: Tensor
    input_shift: Tensor

    def __init__(
        self, channels: int = 16, levels: int = 5, inner: int = 4, bands: int = 128, bins: int = 360, hidden: int = 256
    ) -> None:
        super().__init__()
        self.register_buffer("input_scale", torch.ones(1))
        self.register_buffer("input_shift", torch.zeros(1))
        widths = [channels << level for level in range(levels + 1)]
        self.encoder = nn.ModuleList(Stage(before, after) for before, after in pairwise([1, *widths[:-1]]))
        self.inner = nn.ModuleList(Stage(widths[-2] if n == 0 else widths[-1], widths[-1]) for n in range(inner))
        self.decoder = nn.ModuleList(Decoder(2 * width, width) for width in reversed(widths[:-1]))
        self.merge = nn.Conv2d(channels, 3, 3, padding=1)
        self.gru = nn.GRU(3 * bands, hidden, batch_first=True, bidirectional=True)
        self.head = nn.Linear(2 * hidden, bins)

    def forward(self, mel: Tensor) -> Tensor:
        """Log-mel ``[bands, frames]`` -> salience ``[frames, bins]`` in 0..1. Any length: it is padded with zeros."""
        frames = mel.shape[1]
        padded = F.pad(mel, (0, -frames % STRIDE))
        x = (padded.T * self.input_scale + self.input_shift)[None, None]
        x = x.contiguous(memory_format=torch.channels_last)
        skips = []
        for stage in self.encoder:
            skips.append(stage(x))
            x = F.avg_pool2d(skips[-1], 2)
        for stage in self.inner:
            x = stage(x)
        for decoder in self.decoder:
            x = decoder(x, skips.pop())
        x = self.merge(x)[0].transpose(0, 1).flatten(1)
        x, _ = self.gru(x[None])
        return torch.sigmoid(self.head(x[0, :frames]))


def tensors_from_file(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of the published state dict under this module's names, batch norms folded into the convolutions.

    Raises KeyError for a tensor that is missing.
    """
    renamed: dict[str, Tensor] = {}

    def norm(name: str) -> tuple[Tensor, Tensor]:
        """A batch norm as scale and shift."""
        scale = tensors[f"{name}.weight"].double() / (tensors[f"{name}.running_var"].double() + 1e-5).sqrt()
        return scale, tensors[f"{name}.bias"].double() - tensors[f"{name}.running_mean"].double() * scale

    def folded(ours: str, conv: str, batch_norm: str, channel_axis: int = 0) -> None:
        scale, shift = norm(batch_norm)
        shape = [1] * 4
        shape[channel_axis] = -1
        renamed[f"{ours}.weight"] = (tensors[f"{conv}.weight"].double() * scale.view(shape)).float()
        renamed[f"{ours}.bias"] = shift.float()

    def plain(ours: str, theirs: str) -> None:
        for kind in ("weight", "bias"):
            renamed[f"{ours}.{kind}"] = tensors[f"{theirs}.{kind}"]

    def stage(ours: str, theirs: str) -> None:
        for block in range(4):
            here, there = f"{ours}.blocks.{block}", f"{theirs}.{block}"
            folded(f"{here}.first", f"{there}.conv.0", f"{there}.conv.1")
            folded(f"{here}.second", f"{there}.conv.3", f"{there}.conv.4")
            if f"{there}.shortcut.weight" in tensors:
                plain(f"{here}.shortcut", f"{there}.shortcut")

    scale, shift = norm("unet.encoder.bn")
    renamed["input_scale"], renamed["input_shift"] = scale.float(), shift.float()
    for level in range(5):
        stage(f"encoder.{level}", f"unet.encoder.layers.{level}.conv")
        there = f"unet.decoder.layers.{level}"
        folded(f"decoder.{level}.up", f"{there}.conv1.0", f"{there}.conv1.1", channel_axis=1)
        stage(f"decoder.{level}.stage", f"{there}.conv2")
    for layer in range(4):
        stage(f"inner.{layer}", f"unet.intermediate.layers.{layer}.conv")
    plain("merge", "cnn")
    plain("head", "fc.1")
    for name, tensor in tensors.items():
        if name.startswith("fc.0.gru."):
            renamed["gru." + name.removeprefix("fc.0.gru.")] = tensor
    return renamed
