"""The HiFi-GAN decoder of RVC (Kong et al. 2020), with a sine source if the voice uses F0 (NSF-HiFiGAN).

Applio's MRF HiFi-GAN is the same network with eight overtones and weight normalisation at both ends.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rocktop_ray.models.rvc.config import SynthesizerConfig
from rocktop_ray.models.rvc.layers import NormedConv1d, NormedConvTranspose1d, same_padding
from rocktop_ray.models.rvc.source import HarmonicMix, PhaseSum

EDGE_KERNEL = 7
"""Kernel of the first and the last convolution."""
MRF_OVERTONES = 8
SLOPE = 0.1
LAST_SLOPE = 0.01


class ResBlock1(nn.Module):
    """Residual pairs of convolutions: one dilated, one not."""

    def __init__(self, channels: int, kernel: int, dilations: tuple[int, ...]) -> None:
        super().__init__()
        self.convs1 = nn.ModuleList(_dilated(channels, kernel, dilation) for dilation in dilations)
        self.convs2 = nn.ModuleList(_dilated(channels, kernel, 1) for _ in dilations)

    def forward(self, x: Tensor) -> Tensor:
        """``[batch, channels, samples]`` -> the same shape."""
        for first, second in zip(self.convs1, self.convs2, strict=True):
            x = x + second(F.leaky_relu(first(F.leaky_relu(x, SLOPE)), SLOPE))
        return x


class ResBlock2(nn.Module):
    """Residual dilated convolutions."""

    def __init__(self, channels: int, kernel: int, dilations: tuple[int, ...]) -> None:
        super().__init__()
        self.convs = nn.ModuleList(_dilated(channels, kernel, dilation) for dilation in dilations)

    def forward(self, x: Tensor) -> Tensor:
        """``[batch, channels, samples]`` -> the same shape."""
        for conv in self.convs:
            x = x + conv(F.leaky_relu(x, SLOPE))
        return x


class HifiganDecoder(nn.Module):
    """Latent frames to wave by transposed convolutions, each followed by the mean of parallel residual blocks.

    ``forward`` is ``head``, then ``stage`` for each upsampling, then ``tail``: a caller may run them on tiles.
    """

    def __init__(self, config: SynthesizerConfig) -> None:
        super().__init__()
        mrf = config.decoder == "mrf-hifigan"
        edge = NormedConv1d if mrf else nn.Conv1d
        padding = same_padding(EDGE_KERNEL)
        widths = stage_widths(config)
        self.config = config
        self.blocks_per_stage = len(config.resblock_kernel_sizes)
        self.conv_pre = edge(config.inter_channels, config.upsample_initial_channel, EDGE_KERNEL, padding=padding)
        self.cond = nn.Conv1d(config.gin_channels, config.upsample_initial_channel, 1)
        self.ups = nn.ModuleList()
        self.noise_convs = nn.ModuleList()
        self.resblocks = nn.ModuleList()
        block = ResBlock1 if mrf or config.resblock == "1" else ResBlock2
        for index, (rate, kernel) in enumerate(zip(config.upsample_rates, config.upsample_kernel_sizes, strict=True)):
            wide, narrow = widths[index], widths[index + 1]
            self.ups.append(_upsampling(wide, narrow, rate, kernel))
            if config.uses_f0:
                self.noise_convs.append(_source_conv(narrow, source_stride(config, index)))
            for size, dilations in zip(config.resblock_kernel_sizes, config.resblock_dilation_sizes, strict=True):
                self.resblocks.append(block(narrow, size, dilations))
        self.conv_post = edge(widths[-1], 1, EDGE_KERNEL, padding=padding, bias=mrf)
        self.overtones = MRF_OVERTONES if mrf else 0
        self.phase_sum: PhaseSum = "samples" if mrf else "frames"
        if config.uses_f0:
            self.m_source = HarmonicMix(self.overtones)

    def head(self, latent: Tensor, speaker: Tensor) -> Tensor:
        """Latent ``[batch, latent, frames]``, speaker ``[batch, gin, 1]`` -> ``[batch, widths[0], frames]``."""
        return self.conv_pre(latent) + self.cond(speaker)

    def stage(self, index: int, x: Tensor, source: Tensor | None) -> Tensor:
        """``[batch, widths[index], n]`` -> ``[batch, widths[index + 1], n * rate]``; source ``[batch, 1, samples]``."""
        x = self.ups[index](F.leaky_relu(x, SLOPE))
        if source is not None:
            x = x + self.noise_convs[index](source)
        first = index * self.blocks_per_stage
        total = self.resblocks[first](x)
        for block in self.resblocks[first + 1 : first + self.blocks_per_stage]:
            total = total + block(x)
        return total / self.blocks_per_stage

    def tail(self, x: Tensor) -> Tensor:
        """``[batch, widths[-1], samples]`` -> wave ``[batch, 1, samples]`` within ±1."""
        return torch.tanh(self.conv_post(F.leaky_relu(x, LAST_SLOPE)))

    def forward(self, latent: Tensor, speaker: Tensor, sines: Tensor | None) -> Tensor:
        """Latent ``[batch, latent, frames]`` -> wave ``[batch, 1, frames * hop]``.

        ``speaker`` is ``[batch, gin, 1]``; ``sines`` is ``[batch, frames * hop, 1 + overtones]``, None without F0.
        """
        source = None if sines is None else self.m_source(sines)
        x = self.head(latent, speaker)
        for index in range(len(self.ups)):
            x = self.stage(index, x, source)
        return self.tail(x)


def stage_widths(config: SynthesizerConfig) -> list[int]:
    """Channels before the first upsampling and after each."""
    return [config.upsample_initial_channel // 2**index for index in range(len(config.upsample_rates) + 1)]


def source_stride(config: SynthesizerConfig, index: int) -> int:
    """Source samples per sample that stage ``index`` makes."""
    return math.prod(config.upsample_rates[index + 1 :])


def source_kernel(stride: int) -> tuple[int, int]:
    """Kernel and padding of the convolution that brings the source down by ``stride``."""
    kernel = 1 if stride == 1 else 2 * stride - stride % 2
    return kernel, (kernel - stride) // 2


def upsampling_padding(rate: int, kernel: int) -> tuple[int, int]:
    """Padding and output padding that make an upsampling's output exactly ``rate`` times as long as its input."""
    extra = (kernel - rate) % 2
    return (kernel - rate + extra) // 2, extra


def _dilated(channels: int, kernel: int, dilation: int) -> NormedConv1d:
    return NormedConv1d(channels, channels, kernel, dilation=dilation, padding=same_padding(kernel, dilation))


def _upsampling(wide: int, narrow: int, rate: int, kernel: int) -> NormedConvTranspose1d:
    padding, extra = upsampling_padding(rate, kernel)
    return NormedConvTranspose1d(wide, narrow, kernel, rate, padding=padding, output_padding=extra)


def _source_conv(channels: int, stride: int) -> nn.Conv1d:
    kernel, padding = source_kernel(stride)
    return nn.Conv1d(1, channels, kernel, stride, padding=padding)
