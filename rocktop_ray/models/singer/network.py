"""Content units and F0 to the latent: the levels of a harmonic and a noise filter, frame by frame.

ConvNeXt blocks (Liu et al. 2022) in one dimension, as Vocos (Siuzdak 2023) uses them, here with dilation.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

REFERENCE_HZ = 220.0
"""F0 that the network sees as 0 (its input is in octaves)."""


@dataclass(frozen=True)
class SingerConfig:
    """Everything that shapes the weights."""

    content_dim: int = 512
    width: int = 256
    expansion: int = 3
    dilations: tuple[int, ...] = (1, 1, 2, 2, 4, 4, 1)
    kernel: int = 7
    speakers: int = 1
    harmonic_bands: int = 64
    noise_bands: int = 48
    high_bands: int = 12
    """Noise bands above ``core_hz``, predicted from the others."""
    core_hz: float = 11_600.0
    """Up to here the network has heard its training voice; above, only noise is made."""

    @property
    def core_dim(self) -> int:
        """Channels that the network predicts."""
        return self.harmonic_bands + self.noise_bands

    @property
    def latent_dim(self) -> int:
        """Channels of the latent: harmonic bands, noise bands, high noise bands."""
        return self.core_dim + self.high_bands


class ConvBlock(nn.Module):
    """Depthwise convolution over time, then a two-layer perceptron per frame, on a residual path."""

    def __init__(self, width: int, expansion: int, kernel: int, dilation: int) -> None:
        super().__init__()
        self.depthwise = nn.Conv1d(
            width, width, kernel, padding=dilation * (kernel // 2), dilation=dilation, groups=width
        )
        self.norm = nn.LayerNorm(width)
        self.widen = nn.Linear(width, width * expansion)
        self.narrow = nn.Linear(width * expansion, width)
        self.scale = nn.Parameter(torch.full((width,), 0.2))

    def forward(self, x: Tensor) -> Tensor:
        """``[batch, frames, width]`` to the same shape."""
        y = self.depthwise(x.transpose(1, 2)).transpose(1, 2)
        y = self.narrow(nn.functional.gelu(self.widen(self.norm(y))))
        return x + self.scale * y


class SingerNet(nn.Module):
    """The frame network."""

    def __init__(self, config: SingerConfig) -> None:
        super().__init__()
        self.config = config
        self.content = nn.Linear(config.content_dim, config.width)
        self.pitch = nn.Sequential(nn.Linear(3, 64), nn.GELU(), nn.Linear(64, config.width))
        self.speaker = nn.Embedding(config.speakers, config.width)
        self.blocks = nn.ModuleList(
            ConvBlock(config.width, config.expansion, config.kernel, dilation) for dilation in config.dilations
        )
        self.norm = nn.LayerNorm(config.width)
        self.head = nn.Linear(config.width, config.core_dim)
        self.high = nn.Linear(config.core_dim, config.high_bands)
        nn.init.normal_(self.speaker.weight, std=0.1)
        nn.init.normal_(self.head.weight, std=0.01)
        nn.init.constant_(self.head.bias, -5.0)

    def core(self, units: Tensor, log_f0: Tensor, voiced: Tensor, speaker: Tensor) -> Tensor:
        """The channels up to ``core_hz``, ``[batch, frames, core_dim]``.

        Args:
            units: ``[batch, frames, content_dim]`` at 100/s.
            log_f0: ``[batch, frames]`` octaves above ``REFERENCE_HZ``, interpolated where unvoiced.
            voiced: ``[batch, frames]``, 1 or 0.
            speaker: ``[batch]`` indices.
        """
        melody = self.pitch(torch.stack([log_f0, log_f0.square(), voiced], -1))
        x = self.content(units) + melody + self.speaker(speaker)[:, None]
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x))

    def forward(self, units: Tensor, log_f0: Tensor, voiced: Tensor, speaker: Tensor) -> Tensor:
        """All channels, ``[batch, latent_dim, frames]``: log amplitudes (natural), see ``filters``."""
        core = self.core(units, log_f0, voiced, speaker)
        return torch.cat([core, self.high(core)], -1).transpose(1, 2)
