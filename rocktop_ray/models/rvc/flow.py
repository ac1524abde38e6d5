"""The normalising flow between prior and posterior, and the posterior encoder of training (VITS, Kim et al. 2021)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from rocktop_ray.models.rvc.config import SynthesizerConfig
from rocktop_ray.models.rvc.layers import NormedConv1d, masked, same_padding

KERNEL = 5
FLOWS = 4
FLOW_LAYERS = 3
POSTERIOR_LAYERS = 16


class WaveNet(nn.Module):
    """Gated convolutions with skip sums, conditioned on the speaker (van den Oord et al. 2016, not dilated)."""

    def __init__(self, channels: int, layers: int, speaker_channels: int) -> None:
        super().__init__()
        self.channels = channels
        self.cond_layer = NormedConv1d(speaker_channels, 2 * channels * layers, 1)
        self.in_layers = nn.ModuleList(
            NormedConv1d(channels, 2 * channels, KERNEL, padding=same_padding(KERNEL)) for _ in range(layers)
        )
        # the last layer has no residual half
        self.res_skip_layers = nn.ModuleList(
            NormedConv1d(channels, channels if layer == layers - 1 else 2 * channels, 1) for layer in range(layers)
        )

    def forward(self, x: Tensor, speaker: Tensor, mask: Tensor | None = None) -> Tensor:
        """``[batch, channels, frames]``, speaker ``[batch, speaker_channels, 1]`` -> ``[batch, channels, frames]``."""
        conditions = self.cond_layer(speaker).split(2 * self.channels, 1)
        skip = torch.zeros_like(x)
        for layer, res_skip, condition in zip(self.in_layers, self.res_skip_layers, conditions, strict=True):
            signal, gate = (layer(x) + condition).chunk(2, 1)
            out = res_skip(torch.tanh(signal) * torch.sigmoid(gate))
            if out.shape[1] > self.channels:
                residual, out = out.chunk(2, 1)
                x = masked(x + residual, mask)
            skip = skip + out
        return masked(skip, mask)


class Coupling(nn.Module):
    """Shifts the second half of the channels by what a WaveNet makes of the first; the scale stays 1."""

    def __init__(self, config: SynthesizerConfig) -> None:
        super().__init__()
        half = config.inter_channels // 2
        self.pre = nn.Conv1d(half, config.hidden_channels, 1)
        self.enc = WaveNet(config.hidden_channels, FLOW_LAYERS, config.gin_channels)
        self.post = nn.Conv1d(config.hidden_channels, half, 1)

    def forward(self, x: Tensor, speaker: Tensor, mask: Tensor | None, sign: int) -> Tensor:
        """``[batch, latent, frames]`` -> the same shape; ``sign`` 1 is the training direction, -1 undoes it."""
        first, second = x.chunk(2, 1)
        hidden = self.enc(masked(self.pre(first), mask), speaker, mask)
        return torch.cat([first, masked(second + sign * self.post(hidden), mask)], 1)


class Flow(nn.Module):
    """Four couplings, the channels reversed after each. Files number the reversals too: 0, 2, 4, 6 hold weights."""

    def __init__(self, config: SynthesizerConfig) -> None:
        super().__init__()
        self.flows = nn.ModuleDict({str(2 * index): Coupling(config) for index in range(FLOWS)})

    def forward(self, x: Tensor, speaker: Tensor, mask: Tensor | None = None) -> Tensor:
        """Posterior to prior, as in training: ``[batch, latent, frames]`` -> the same shape."""
        for coupling in self.flows.values():
            x = coupling(x, speaker, mask, 1).flip(1)
        return x

    def inverse(self, x: Tensor, speaker: Tensor, mask: Tensor | None = None) -> Tensor:
        """Prior to latent, as in conversion: ``[batch, latent, frames]`` -> the same shape."""
        for coupling in reversed(list(self.flows.values())):
            x = coupling(x.flip(1), speaker, mask, -1)
        return x


class PosteriorEncoder(nn.Module):
    """Linear spectrogram to the latent frames' mean and log-scale. Training only."""

    def __init__(self, config: SynthesizerConfig) -> None:
        super().__init__()
        self.pre = nn.Conv1d(config.spec_channels, config.hidden_channels, 1)
        self.enc = WaveNet(config.hidden_channels, POSTERIOR_LAYERS, config.gin_channels)
        self.proj = nn.Conv1d(config.hidden_channels, 2 * config.inter_channels, 1)

    def forward(self, spectrogram: Tensor, speaker: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """``[batch, spec_channels, frames]`` -> mean, log-scale, each ``[batch, latent, frames]``."""
        hidden = self.enc(masked(self.pre(spectrogram), mask), speaker, mask)
        mean, log_scale = masked(self.proj(hidden), mask).chunk(2, 1)
        return mean, log_scale
