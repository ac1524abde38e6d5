"""An adversary that looks at patches of mel spectrograms, against the over-smooth formants of a regression loss.

Least-squares objective (Mao et al. 2017) with feature matching, on one mel resolution that is too coarse to see single
harmonics: it judges envelopes, not F0.
"""

from __future__ import annotations

import itertools

import librosa
import torch
from torch import Tensor, nn

from train_loops.bundle.losses import FLOOR
from train_loops.bundle.sources import RATE

SIZE, STEP, BANDS = 768, 192, 96


class MelPatches(nn.Module):
    """Wave ``[batch, samples]`` at 24 kHz -> features of each layer, the last is the verdict per patch."""

    filters: Tensor
    window: Tensor

    def __init__(self, top_hz: float = 11_600.0) -> None:
        super().__init__()
        filters = librosa.filters.mel(sr=RATE, n_fft=SIZE, n_mels=BANDS, fmin=60, fmax=top_hz, norm=None)
        filters = filters / filters.sum(1, keepdims=True).clip(1e-3)
        self.register_buffer("filters", torch.tensor(filters.T, dtype=torch.float32))
        self.register_buffer("window", torch.hann_window(SIZE))
        widths = (2, 24, 48, 64, 64)
        self.layers = nn.ModuleList(
            nn.utils.parametrizations.weight_norm(
                nn.Conv2d(a, b, (3, 5), stride=(1 if i == 0 else 2, 2), padding=(1, 2))
            )
            for i, (a, b) in enumerate(itertools.pairwise(widths))
        )
        self.verdict = nn.utils.parametrizations.weight_norm(nn.Conv2d(widths[-1], 1, 3, padding=1))

    def forward(self, wave: Tensor) -> list[Tensor]:
        """See the class."""
        frames = wave.unfold(1, SIZE, STEP) * (self.window / self.window.square().sum().sqrt())
        power = torch.view_as_real(torch.fft.rfft(frames)).square().sum(-1) @ self.filters
        level = 0.5 * torch.log(power + FLOOR**2)
        place = torch.linspace(-1, 1, BANDS, device=wave.device).expand_as(level)
        x = torch.stack([level / 3 + 1, place], 1)
        result = []
        for layer in self.layers:
            x = nn.functional.leaky_relu(layer(x), 0.2)
            result.append(x)
        result.append(self.verdict(x))
        return result


def critic_loss(critic: MelPatches, real: Tensor, made: Tensor) -> Tensor:
    """What the critic minimises."""
    true, false = critic(real)[-1], critic(made.detach())[-1]
    return (true - 1).square().mean() + false.square().mean()


def fooling_loss(critic: MelPatches, real: Tensor, made: Tensor) -> tuple[Tensor, Tensor]:
    """What the model minimises: the verdict on its wave, and the distance of the features."""
    with torch.no_grad():
        true = critic(real)
    false = critic(made)
    match = torch.stack([(a - b).abs().mean() for a, b in zip(true[:-1], false[:-1], strict=True)]).mean()
    return (false[-1] - 1).square().mean(), match
