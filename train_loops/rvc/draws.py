"""The random draws of a step, addressed by seed, step and slot.

They do not depend on how a batch is divided over workers and parts, on its padding, or on what was drawn before: a
resumed run and a run with other workers draw the same.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from train_loops.rvc.batches import Batch
from train_loops.rvc.recipe import Recipe

_START, _POSTERIOR, _SOURCE = range(3)


@dataclass(frozen=True, eq=False)
class Draws:
    """What is random in one forward pass of the generator."""

    starts: tuple[int, ...]
    """First frame of each example's segment, uniform over those that leave room for a whole one."""
    posterior: Tensor
    """Standard normal ``[batch, latent, T]``, 0 in padding."""
    source: Tensor
    """Standard normal ``[batch, segment_frames * hop, harmonics]``."""


def draw(recipe: Recipe, batch: Batch, step: int, *, harmonics: int) -> Draws:
    """The draws of a step for the examples of ``batch``, on its device."""
    width, samples = recipe.synthesizer.inter_channels, recipe.segment_samples
    posterior = torch.zeros(len(batch.slots), width, max(batch.lengths))
    source = torch.empty(len(batch.slots), samples, harmonics)
    starts = []
    for row, (slot, frames) in enumerate(zip(batch.slots, batch.lengths, strict=True)):
        room = frames - recipe.segment_frames + 1
        starts.append(int(_random(recipe.seed, step, slot, _START).random() * room))
        table = _random(recipe.seed, step, slot, _POSTERIOR).standard_normal((frames, width), np.float32)
        posterior[row, :, :frames] = torch.from_numpy(table).T
        noise = _random(recipe.seed, step, slot, _SOURCE).standard_normal((samples, harmonics), np.float32)
        source[row] = torch.from_numpy(noise)
    device = batch.units.device
    return Draws(tuple(starts), posterior.to(device), source.to(device))


def _random(seed: int, step: int, slot: int, table: int) -> np.random.Generator:
    key, counter = np.array([seed, step], np.uint64), np.array([0, 0, slot, table + 1], np.uint64)
    return np.random.Generator(np.random.Philox(key=key, counter=counter))
