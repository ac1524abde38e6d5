"""The sine source of neural source-filter decoders (Wang, Takaki and Yamagishi 2019).

A phase is a sum over all frames before it, so a source may start anywhere in its array. The sums follow the float32
rounding of the reference implementations, which turns a long steady note by milliradians: an exact sum would miss the
reference's wave. Overtones start in phase with the fundamental (the references draw their first phases anew in each
call), so a render repeats.
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

PhaseSum = Literal["frames", "samples", "gliding"]
"""How the phase is summed: over frames (RVC), over samples of F0 held within a frame (Applio's MRF HiFi-GAN), or over
samples of F0 interpolated between the frames' middles (Applio's RefineGAN)."""


def sine_source(
    f0: Tensor,
    *,
    hop: int,
    sample_rate: int,
    overtones: int = 0,
    phase_sum: PhaseSum = "frames",
    start: int = 0,
    stop: int | None = None,
    noise: Tensor | None = None,
) -> Tensor:
    """F0 ``[batch, frames]`` in Hz -> sines and noise ``[batch, (stop - start) * hop, 1 + overtones]``, float32.

    Frames ``start .. stop`` of the whole array's source; the phase is 0 one sample before the array. ``noise`` is
    standard normal of the shape of the result; None means no noise.
    """
    stop = f0.shape[1] if stop is None else stop
    harmonics = f0.float()[..., None] * torch.arange(1, overtones + 2, device=f0.device)
    if phase_sum == "gliding":
        harmonics = harmonics[:, : stop + 1]  # the frame after the part, for the way to it
        harmonics = F.interpolate(harmonics.mT, size=harmonics.shape[1] * hop, mode="linear").mT
        cycles = _gliding_cycles(harmonics / sample_rate)[:, start * hop : stop * hop]
        voiced = harmonics[:, start * hop : stop * hop, :1] > 0
    else:
        cycles_of = _frame_cycles if phase_sum == "frames" else _sample_cycles
        cycles = cycles_of(harmonics / sample_rate, hop, start, stop).flatten(1, 2)
        voiced = (f0[:, start:stop, None] > 0).repeat_interleave(hop, 1)
    return sounding(cycles, voiced, noise)


def sounding(cycles: Tensor, voiced: Tensor, noise: Tensor | None) -> Tensor:
    """Cycles ``[..., samples, harmonics]``, which samples are voiced ``[..., samples, 1]``, noise -> the source."""
    sines = (cycles * (2 * math.pi)).sin_().mul_(SINE_AMPLITUDE).mul_(voiced)
    return sines if noise is None else sines + noise * torch.where(voiced, VOICED_NOISE, UNVOICED_NOISE)


def _frame_cycles(steps: Tensor, hop: int, start: int, stop: int) -> Tensor:
    """Cycles per sample ``[batch, frames, harmonics]`` -> cycles so far, modulo 1 ``[batch, frames, hop, harmonics]``.

    Each frame adds its cycles, brought to ±0.5, to a float32 sum.
    """
    before = F.pad(frame_turns(steps, hop).cumsum(1), (0, 0, 1, -1))
    return cycles_within(steps[:, start:stop], before[:, start:stop], hop)


def frame_turns(steps: Tensor, hop: int) -> Tensor:
    """What each frame adds to the sum of cycles, within ±0.5, float64. Same shape as ``steps``, cycles per sample."""
    return ((steps * hop + 0.5).fmod(1.0) - 0.5).double()


def cycles_within(steps: Tensor, before: Tensor, hop: int) -> Tensor:
    """Cycles a sample and the sum before each frame, ``[..., frames, harmonics]`` -> ``[..., frames, hop, harmonics]``.

    The sum counts as it is in float32.
    """
    samples = torch.arange(1, hop + 1, device=steps.device)[:, None]
    return steps[..., None, :] * samples + before.float().fmod(1.0)[..., None, :]


def _sample_cycles(steps: Tensor, hop: int, start: int, stop: int) -> Tensor:
    """As ``_frame_cycles``, but each sample adds its step, and a full turn takes 1 off in that float32 addition."""
    steps = steps % 1.0
    before = F.pad((steps.double() * hop).cumsum(1), (0, 0, 1, 0))
    slipped = F.pad((turn_error(steps) * before.floor().diff(dim=1)).cumsum(1), (0, 0, 1, 0))
    part = slice(start, stop)
    return slipping_within(steps[:, part], before[:, :-1][:, part], slipped[:, :-1][:, part], hop)


def slipping_within(steps: Tensor, before: Tensor, slipped: Tensor, hop: int) -> Tensor:
    """As ``cycles_within`` for the sum over samples; ``slipped`` is what full turns have left before each frame."""
    slip = turn_error(steps)[..., None, :]
    samples = torch.arange(1, hop + 1, dtype=torch.float64, device=steps.device)[:, None]
    cycles = (steps.double()[..., None, :] * samples).add_(before.frac()[..., None, :])
    turns = cycles.floor()
    return cycles.sub_(turns.mul_(1.0 - slip)).add_(slipped[..., None, :]).float()


def _gliding_cycles(steps: Tensor) -> Tensor:
    """As ``_sample_cycles`` for steps that differ from sample to sample: ``[batch, samples, harmonics]``."""
    steps = steps % 1.0
    cycles = steps.double().cumsum(1)
    turns = F.pad(cycles.floor(), (0, 0, 1, 0)).diff(dim=1)
    return (cycles.frac() + (turn_error(steps) * turns).cumsum(1)).float()


def turn_error(steps: Tensor) -> Tensor:
    """What float32 rounds off when a turn is taken from a step."""
    return (steps - 1.0).double() - (steps.double() - 1.0)


class HarmonicMix(nn.Module):
    """Mixes the fundamental and its overtones into one excitation, squashed by tanh."""

    def __init__(self, overtones: int) -> None:
        super().__init__()
        self.overtones = overtones
        self.l_linear = nn.Linear(1 + overtones, 1)

    def forward(self, sines: Tensor) -> Tensor:
        """``[batch, samples, 1 + overtones]`` -> ``[batch, 1, samples]``."""
        return torch.tanh(self.l_linear(sines)).mT
