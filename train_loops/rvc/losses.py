"""The losses of RVC's training, as sums over examples or frames.

A worker divides its sums by the counts of the whole batch, over all workers (``Counts``), so gradients that are added
over workers of unequal shares are those of one big batch. Divided by the counts of the batch itself they are the means
that the reference trainers use. Least-squares GAN: Mao et al. 2017; feature matching: Kong et al. 2020; divergence: Kim
et al. 2021 (VITS).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

Features = Sequence[Sequence[Tensor]]
"""Per discriminator the features ``[batch, ...]`` of its layers; the last is the verdict."""


@dataclass(frozen=True)
class Counts:
    """What the sums of a batch are divided by."""

    examples: int
    """Segments that are judged; they are equally long."""
    frames: int
    """Frames of 10 ms of the whole examples."""

    def __add__(self, other: Counts) -> Counts:
        return Counts(self.examples + other.examples, self.frames + other.frames)


def discriminator_loss(real: Features, made: Features) -> Tensor:
    """Sum over examples of the squared distance of verdicts from 1 on true waves and from 0 on made ones.

    Each discriminator counts with the mean over its verdicts.
    """
    total = torch.zeros((), device=real[0][-1].device)
    for true, false in zip(real, made, strict=True):
        total = total + _per_example((1 - true[-1].float()).square()) + _per_example(false[-1].float().square())
    return total


def adversarial_loss(made: Features) -> Tensor:
    """Sum over examples of the squared distance of verdicts on made waves from 1."""
    return torch.stack([_per_example((1 - features[-1].float()).square()) for features in made]).sum()


def feature_loss(real: Features, made: Features) -> Tensor:
    """Sum over examples of the mean absolute difference of features, added over layers and discriminators.

    Not yet doubled, as the reference does: ``LossWeights.feature``. The true features are constants.
    """
    total = torch.zeros((), device=made[0][-1].device)
    for true, false in zip(real, made, strict=True):
        for one, other in zip(true, false, strict=True):
            total = total + _per_example((one.float().detach() - other.float()).abs())
    return total


def mel_loss(real: Tensor, made: Tensor) -> Tensor:
    """Log-mel ``[batch, bands, frames]`` of both -> sum over examples of the mean absolute difference."""
    return _per_example((real.float() - made.float()).abs())


def kl_loss(latent: Tensor, log_scale_q: Tensor, mean_p: Tensor, log_scale_p: Tensor, mask: Tensor) -> Tensor:
    """Sum over frames of the divergence between posterior and prior, summed over channels.

    ``latent`` is the posterior's draw after the flow; all are ``[batch, latent, frames]``, ``mask`` ``[batch, 1,
    frames]``. A one-draw estimate: it may be negative.
    """
    latent, log_scale_q = latent.float(), log_scale_q.float()
    mean_p, log_scale_p = mean_p.float(), log_scale_p.float()
    each = log_scale_p - log_scale_q - 0.5 + 0.5 * (latent - mean_p).square() * (-2 * log_scale_p).exp()
    return (each * mask).sum()


def _per_example(values: Tensor) -> Tensor:
    """Mean over all but the first axis, summed over that."""
    return values.sum() / (values.numel() // values.shape[0])
