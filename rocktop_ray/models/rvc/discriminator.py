"""The discriminators of RVC's training: one that hears the wave, and one per period that sees it folded.

The multi-period discriminator of HiFi-GAN (Kong et al. 2020) with one scale discriminator in front, as RVC's
``D_*.pth`` and pretrained ``f0D48k.pth`` hold it: eight periods in v2, six in v1. Training only.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor, nn

from rocktop_ray.errors import VoiceFormatError
from rocktop_ray.models.rvc.layers import NormedConv1d, NormedConv2d, same_padding

PERIODS = {"v1": (2, 3, 5, 7, 11, 17), "v2": (2, 3, 5, 7, 11, 17, 23, 37)}
"""Periods in samples by RVC version."""
SLOPE = 0.1

_FIRST_KERNEL, _SCALE_KERNEL, _LAST_SCALE_KERNEL, _PERIOD_KERNEL, _POST_KERNEL = 15, 41, 5, 5, 3
_SCALE_STRIDES = (1, 4, 4, 4, 4, 1)
_PERIOD_STRIDES = (3, 3, 3, 3, 1)


@dataclass(frozen=True)
class DiscriminatorConfig:
    """Sizes of a discriminator; the defaults are those of every published ``D_*.pth``.

    Raises VoiceFormatError if the numbers do not go together.
    """

    periods: tuple[int, ...] = PERIODS["v2"]
    """Samples per row of each period discriminator."""
    period_channels: tuple[int, ...] = (32, 128, 512, 1024, 1024)
    """Channels after each of the five layers of a period discriminator."""
    scale_channels: tuple[int, ...] = (16, 64, 256, 1024, 1024, 1024)
    """Channels after each of the six layers of the scale discriminator."""
    scale_groups: tuple[int, ...] = (1, 4, 16, 64, 256, 1)
    """Groups of those six layers' convolutions."""

    def __post_init__(self) -> None:
        problems = []
        for name, length in (("period_channels", 5), ("scale_channels", 6), ("scale_groups", 6), ("periods", None)):
            values = getattr(self, name)
            if not isinstance(values, tuple) or not values or not all(type(v) is int and 0 < v <= 8192 for v in values):
                problems.append(f"{name} must be whole numbers from 1 to 8192, not {values!r}")
            elif length is not None and len(values) != length:
                problems.append(f"{name} must be {length} numbers, not {len(values)}")
        if not problems:
            inputs = (1, *self.scale_channels)
            for layer, groups in enumerate(self.scale_groups):
                if inputs[layer] % groups or self.scale_channels[layer] % groups:
                    problems.append(f"scale_groups {groups} of layer {layer} does not divide its channels")
        if problems:
            raise VoiceFormatError("the discriminator cannot be built: " + "; ".join(problems))


class ScaleDiscriminator(nn.Module):
    """Grouped, strided convolutions over the wave."""

    def __init__(self, config: DiscriminatorConfig) -> None:
        super().__init__()
        kernels = (_FIRST_KERNEL, *(_SCALE_KERNEL for _ in range(4)), _LAST_SCALE_KERNEL)
        inputs = (1, *config.scale_channels)
        self.convs = nn.ModuleList(
            NormedConv1d(inputs[i], wide, kernel, stride, groups=groups, padding=same_padding(kernel))
            for i, (wide, kernel, stride, groups) in enumerate(
                zip(config.scale_channels, kernels, _SCALE_STRIDES, config.scale_groups, strict=True)
            )
        )
        self.conv_post = NormedConv1d(inputs[-1], 1, _POST_KERNEL, padding=same_padding(_POST_KERNEL))

    def forward(self, wave: Tensor) -> list[Tensor]:
        """``[batch, 1, samples]`` -> features of each layer, each ``[batch, ...]``; the last is the verdict."""
        return _through(self.convs, self.conv_post, wave)


class PeriodDiscriminator(nn.Module):
    """Strided convolutions down the columns of the wave written in rows of ``period`` samples."""

    def __init__(self, config: DiscriminatorConfig, period: int) -> None:
        super().__init__()
        self.period = period
        inputs = (1, *config.period_channels)
        padding = (same_padding(_PERIOD_KERNEL), 0)
        self.convs = nn.ModuleList(
            NormedConv2d(inputs[i], wide, (_PERIOD_KERNEL, 1), (stride, 1), padding=padding)
            for i, (wide, stride) in enumerate(zip(config.period_channels, _PERIOD_STRIDES, strict=True))
        )
        self.conv_post = NormedConv2d(inputs[-1], 1, (_POST_KERNEL, 1), padding=(same_padding(_POST_KERNEL), 0))

    def forward(self, wave: Tensor) -> list[Tensor]:
        """``[batch, 1, samples]`` -> features of each layer, each ``[batch, ...]``; the last is the verdict.

        A wave that does not fill its last row is mirrored at its end.
        """
        wave = F.pad(wave, (0, -wave.shape[2] % self.period), "reflect")
        return _through(self.convs, self.conv_post, wave.unflatten(2, (-1, self.period)))


class MultiPeriodDiscriminator(nn.Module):
    """The scale discriminator and all period discriminators, in the order of the files."""

    def __init__(self, config: DiscriminatorConfig) -> None:
        super().__init__()
        self.config = config
        judges: list[nn.Module] = [ScaleDiscriminator(config)]
        judges += [PeriodDiscriminator(config, period) for period in config.periods]
        self.discriminators = nn.ModuleList(judges)

    def forward(self, wave: Tensor) -> list[list[Tensor]]:
        """Wave ``[batch, 1, samples]`` within ±1 -> per discriminator its layers' features; the last is the verdict.

        Items of a batch do not influence each other: true and made waves may go through together.
        """
        return [judge(wave) for judge in self.discriminators]


def _through(convs: nn.ModuleList, post: nn.Module, x: Tensor) -> list[Tensor]:
    features = []
    for conv in convs:
        x = F.leaky_relu(conv(x), SLOPE)
        features.append(x)
    return [*features, post(x)]
