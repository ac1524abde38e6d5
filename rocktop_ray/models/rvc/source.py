"""The sine source of neural source-filter decoders (Wang, Takaki and Yamagishi 2019).

The phase is an exact sum in float64, so a source may start anywhere and be any length. Overtones start in phase with
the fundamental (the reference draws their first phases anew in each call), so a render repeats.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

SINE_AMPLITUDE = 0.1
VOICED_NOISE = 0.003
UNVOICED_NOISE = SINE_AMPLITUDE / 3

Interpolation = Literal["hold", "linear"]
"""How F0 goes from frames to samples: constant within a frame, or linear between the frames' middles."""


def sine_source(
    f0: Tensor,
    *,
    hop: int,
    sample_rate: int,
    overtones: int = 0,
    interpolation: Interpolation = "hold",
    start: int = 0,
    stop: int | None = None,
    noise: Tensor | None = None,
) -> Tensor:
    """F0 ``[batch, frames]`` in Hz -> sines and noise ``[batch, (stop - start) * hop, 1 + overtones]``, float32.

    Frames ``start .. stop`` of the whole array's source; the phase is 0 one sample before the array. ``noise`` is
    standard normal of the shape of the result; None means no noise.
    """
    stop = f0.shape[1] if stop is None else stop
    f0 = f0.double()
    if interpolation == "hold":
        cycles, voiced = _held(f0, hop, sample_rate, start, stop)
    else:
        cycles, voiced = _gliding(f0, hop, sample_rate, start, stop)
    harmonics = torch.arange(1, overtones + 2, dtype=torch.float64, device=f0.device)
    phase = (cycles[..., None] * harmonics).frac() * (2 * math.pi)
    sines = phase.float().sin() * SINE_AMPLITUDE * voiced[..., None]
    if noise is None:
        return sines
    return sines + noise * torch.where(voiced, VOICED_NOISE, UNVOICED_NOISE)[..., None]


def _held(f0: Tensor, hop: int, sample_rate: int, start: int, stop: int) -> tuple[Tensor, Tensor]:
    """Cycles since the array's start and voicing, per sample of frames ``start .. stop``."""
    whole = (f0 * (hop / sample_rate)).cumsum(1)
    before = F.pad(whole, (1, 0))[:, start:stop].frac()
    steps = torch.arange(1, hop + 1, dtype=torch.float64, device=f0.device) / sample_rate
    inside = f0[:, start:stop]
    cycles = (before[..., None] + inside[..., None] * steps).flatten(1)
    return cycles, (inside > 0).repeat_interleave(hop, 1)


def _gliding(f0: Tensor, hop: int, sample_rate: int, start: int, stop: int) -> tuple[Tensor, Tensor]:
    """As ``_held``, with F0 interpolated between the frames' middles; the ends are held."""
    glide = F.interpolate(f0[:, None], size=f0.shape[1] * hop, mode="linear")[:, 0]
    cycles = (glide / sample_rate).cumsum(1)
    window = slice(start * hop, stop * hop)
    return cycles[:, window].frac(), glide[:, window] > 0


class HarmonicMix(nn.Module):
    """Mixes the fundamental and its overtones into one excitation, squashed by tanh."""

    def __init__(self, overtones: int) -> None:
        super().__init__()
        self.overtones = overtones
        self.l_linear = nn.Linear(1 + overtones, 1)

    def forward(self, sines: Tensor) -> Tensor:
        """``[batch, samples, 1 + overtones]`` -> ``[batch, 1, samples]``."""
        return torch.tanh(self.l_linear(sines)).mT
