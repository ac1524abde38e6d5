"""What the students are asked for."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from rocktop_ray.models.listener.front import BINS, CENTS, LOWEST_HZ
from rocktop_ray.models.listener.network import Heard

_SPREAD = 1.25
"""Standard deviation, in classes, of the peak that stands for a pitch."""
_QUIET = 0.2
"""Weight of what cannot be heard."""


def pitch_target(f0: Tensor) -> Tensor:
    """F0 ``[..]`` in Hz, > 0 -> salience ``[.., 288]``: a peak of height 1 around the pitch."""
    place = torch.log2(f0.clamp_min(1.0) / LOWEST_HZ) * (1200 / CENTS)
    return torch.exp(-0.5 * ((torch.arange(BINS) - place[..., None]) / _SPREAD).square())


def listening_loss(
    heard: Heard, units: Tensor, f0: Tensor, loud: Tensor, views: Tensor, scale: float
) -> tuple[Tensor, dict[str, float]]:
    """Loss of the listener's rows, already aligned with the targets, and its parts.

    Args:
        heard: ``[batch, n, ..]``.
        units: ``[batch, n, dim]``.
        f0: ``[batch, n]``, 0 = unvoiced.
        loud: ``[batch, n]``, 0 to 1.
        views: ``[256, dim]``: what the frame network reads of the units; errors there count, too.
        scale: mean square of what it reads.
    """
    weight = _QUIET + loud
    weight = weight / weight.sum()
    gap = heard.units - units
    plain = (gap.square().mean(-1) * weight).sum()
    seen = (F.linear(gap, views).square().mean(-1) * weight).sum() / scale
    voiced = ((f0 > LOWEST_HZ) & (f0 < 1370)).float()
    peaks = F.binary_cross_entropy_with_logits(heard.salience, pitch_target(f0), reduction="none").mean(-1)
    pitch = (peaks * voiced).sum() / voiced.sum().clamp_min(1.0)
    voicing = F.binary_cross_entropy_with_logits(heard.voicing, (f0 > 0).float())
    loss = plain + seen + 10 * pitch + 0.2 * voicing
    parts = {"units": plain, "seen": seen, "pitch": pitch, "voicing": voicing}
    return loss, {name: value.item() for name, value in parts.items()}


def latent_loss(made: Tensor, wanted: Tensor) -> Tensor:
    """Mean difference of log amplitudes ``[batch, n, bands]``, those that cannot be heard counting less."""
    weight = _QUIET + torch.sigmoid((wanted + 6) / 1.5)
    return ((made - wanted).abs() * weight).sum() / weight.sum()
