"""Applio's RefineGAN decoder (after Xu, Zhao and Guo 2021): the source is brought down to the frame rate and back up.

The way down keeps a copy at each rate; the way up joins them, and adds a little noise around each residual block.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rocktop_ray.models.rvc.config import REFINEGAN_GIN_CHANNELS, REFINEGAN_INITIAL_CHANNEL, SynthesizerConfig
from rocktop_ray.models.rvc.layers import NormedConv1d, same_padding
from rocktop_ray.models.rvc.source import PhaseSum

Jitter = Callable[[str, int, int], Tensor]
"""Table name, channels, samples -> standard normal ``[batch, channels, samples]``."""

EDGE_KERNEL = 7
BLOCK_KERNELS = (3, 7, 11)
BLOCK_DILATIONS = (1, 3, 5)
SLOPE = 0.2
_SOURCE_CHANNELS = 16
_ZERO_CROSSINGS = 64
_ROLLOFF = 0.9475937167399596
_KAISER_BETA = 14.769656459379492


class NoiseGain(nn.Module):
    """Adds noise with a gain per channel, then a leaky ReLU."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.full((channels,), 1e-4))

    def forward(self, x: Tensor, noise: Tensor | None) -> Tensor:
        """``[batch, channels, samples]`` -> the same shape."""
        if noise is not None:
            x = x + noise * self.weight[:, None]
        return F.leaky_relu(x, SLOPE)


class RefineResBlock(nn.Module):
    """Residual pairs of convolutions: one dilated, one not."""

    def __init__(self, channels: int, kernel: int) -> None:
        super().__init__()
        self.convs1 = nn.ModuleList(_conv(channels, channels, kernel, dilation) for dilation in BLOCK_DILATIONS)
        self.convs2 = nn.ModuleList(_conv(channels, channels, kernel) for _ in BLOCK_DILATIONS)

    def forward(self, x: Tensor) -> Tensor:
        """``[batch, channels, samples]`` -> the same shape."""
        for first, second in zip(self.convs1, self.convs2, strict=True):
            x = x + second(F.leaky_relu(first(F.leaky_relu(x, SLOPE)), SLOPE))
        return x


class NoisyBlock(nn.ModuleList):
    """A residual block between two noise gains."""

    def __init__(self, channels: int, kernel: int) -> None:
        super().__init__([NoiseGain(channels), RefineResBlock(channels, kernel), NoiseGain(channels)])

    def forward(self, x: Tensor, name: str, jitter: Jitter | None) -> Tensor:
        """``[batch, channels, samples]`` -> the same shape; noise comes from the tables ``name.0`` and ``name.2``."""
        before, block, after = self
        noise = [None if jitter is None else jitter(f"{name}.{place}", *x.shape[1:]) for place in (0, 2)]
        return after(block(before(x, noise[0])), noise[1])


class ParallelBlocks(nn.Module):
    """A convolution, then the mean of residual blocks of different kernels, each between two noise gains."""

    def __init__(self, wide: int, narrow: int) -> None:
        super().__init__()
        self.input_conv = nn.Conv1d(wide, narrow, EDGE_KERNEL, padding=same_padding(EDGE_KERNEL))
        self.blocks = nn.ModuleList(NoisyBlock(narrow, kernel) for kernel in BLOCK_KERNELS)

    def forward(self, x: Tensor, name: str, jitter: Jitter | None) -> Tensor:
        """``[batch, wide, samples]`` -> ``[batch, narrow, samples]``; ``name`` begins the names of its noise tables."""
        x = self.input_conv(x)
        total = torch.zeros_like(x)
        for index, block in enumerate(self.blocks):
            total = total + block(x, f"{name}.{index}", jitter)
        return total / len(self.blocks)


class SineMerge(nn.Module):
    """Scales the sine and squashes it by tanh."""

    def __init__(self) -> None:
        super().__init__()
        self.merge = nn.Sequential(nn.Linear(1, 1, bias=False), nn.Tanh())

    def forward(self, sines: Tensor) -> Tensor:
        """``[batch, samples, 1]`` -> ``[batch, 1, samples]``."""
        return self.merge(sines).mT


class RefineganDecoder(nn.Module):
    """Latent frames and source to wave."""

    phase_sum: PhaseSum = "gliding"
    overtones = 0

    def __init__(self, config: SynthesizerConfig) -> None:
        super().__init__()
        self.config = config
        self.m_source = SineMerge()
        self.pre_conv = _conv(1, _SOURCE_CHANNELS, EDGE_KERNEL)
        stages = len(config.upsample_rates)
        narrow = [_SOURCE_CHANNELS * 2**index for index in range(stages + 1)]
        self.downsample_blocks = nn.ModuleList(
            _conv(narrow[index], narrow[index + 1], EDGE_KERNEL) for index in range(stages)
        )
        wide = REFINEGAN_INITIAL_CHANNEL
        self.mel_conv = _conv(config.inter_channels, wide // 2, EDGE_KERNEL)
        self.cond = nn.Conv1d(REFINEGAN_GIN_CHANNELS, wide // 2, 1)
        self.upsample_conv_blocks = nn.ModuleList()
        for index in range(stages):
            width = wide // 2**index
            self.upsample_conv_blocks.append(ParallelBlocks(width + narrow[stages - 1 - index], width // 2))
        last = wide // 2**stages
        self.conv_post = NormedConv1d(last, 1, EDGE_KERNEL, padding=same_padding(EDGE_KERNEL), bias=False)

    def forward(
        self,
        latent: Tensor,
        speaker: Tensor,
        sines: Tensor,
        jitter: Jitter | None = None,
        *,
        first: int = 0,
        skip: int = 0,
    ) -> Tensor:
        """Latent ``[batch, latent, frames]`` -> wave ``[batch, 1, frames * hop]``.

        ``speaker`` is ``[batch, gin, 1]``, ``sines`` ``[batch, >= frames * hop, 1]``. ``jitter`` None means no noise.
        For a part of a take, ``first`` is its first frame's number in the take; ``sines`` may begin ``skip`` frames
        before it and end later: the way down sees much farther than the way up, which costs a hundred times more.
        """
        x = self.pre_conv(self.m_source(sines))
        copies = []
        for rate, block in zip(reversed(self.config.upsample_rates), self.downsample_blocks, strict=True):
            x = F.leaky_relu(x, SLOPE)
            copies.append(x)
            x = block(decimate(x, rate))
        x = torch.cat([self.mel_conv(latent) + self.cond(speaker), x[..., skip : skip + latent.shape[2]]], 1)
        stages = zip(self.config.upsample_rates, self.upsample_conv_blocks, reversed(copies), strict=True)
        for index, (rate, blocks, copy) in enumerate(stages):
            x = stretch(F.leaky_relu(x, SLOPE), rate, first)
            first, skip = first * rate, skip * rate
            x = blocks(torch.cat([x, copy[..., skip : skip + x.shape[2]]], 1), f"refine.{index}", jitter)
        return torch.tanh(self.conv_post(F.leaky_relu(x, SLOPE)))


def stretch(x: Tensor, rate: int, first: int) -> Tensor:
    """``[batch, channels, samples]`` -> ``rate`` times as many by linear interpolation, the ends held.

    ``first`` is the first sample's number in the whole take. Positions are rounded as torch's ``interpolate`` rounds
    them for the whole (a float32 fused multiply-add, off by a hundredth of a sample in long takes), so a part comes
    out as in the reference.
    """
    places = torch.arange(first * rate, (first + x.shape[2]) * rate, dtype=torch.float64, device="cpu") + 0.5
    scale = torch.tensor(1 / rate, dtype=torch.float32, device="cpu").double()
    places = (places * scale - 0.5).float().clamp_min(0)
    left = places.long()
    share = (places - left).to(x)
    left = (left - first).to(x.device)
    last = x.shape[2] - 1
    return x[..., left.clamp(0, last)] * (1 - share) + x[..., (left + 1).clamp(0, last)] * share


def decimate(x: Tensor, rate: int) -> Tensor:
    """``[batch, channels, samples]`` -> every ``rate``-th sample after a Kaiser-windowed sinc low-pass.

    The filter is that of torchaudio's ``resample`` with 64 zero crossings, roll-off 0.9476 and the given beta.
    """
    if rate == 1:
        return x
    reach = decimation_reach(rate)
    flat = F.pad(x.reshape(-1, 1, x.shape[2]), (reach, reach + rate))
    length = -(-x.shape[2] // rate)
    return F.conv1d(flat, _low_pass(rate).to(x), stride=rate)[..., :length].reshape(*x.shape[:2], length)


def decimation_reach(rate: int) -> int:
    """Samples that the low-pass sees before a kept one (and ``rate - 1`` more after it)."""
    return math.ceil(_ZERO_CROSSINGS * rate / _ROLLOFF)


@cache
def _low_pass(rate: int) -> Tensor:
    reach = decimation_reach(rate)
    time = torch.arange(-reach, reach + rate, dtype=torch.float64, device="cpu") / rate * _ROLLOFF
    time = time.clamp(-_ZERO_CROSSINGS, _ZERO_CROSSINGS)
    beta = torch.tensor(_KAISER_BETA, dtype=torch.float64, device="cpu")
    window = torch.i0(beta * (1 - (time / _ZERO_CROSSINGS) ** 2).sqrt()) / torch.i0(beta)
    return (torch.sinc(time) * window * (_ROLLOFF / rate)).float()[None, None]


def _conv(wide: int, narrow: int, kernel: int, dilation: int = 1) -> NormedConv1d:
    return NormedConv1d(wide, narrow, kernel, dilation=dilation, padding=same_padding(kernel, dilation))
