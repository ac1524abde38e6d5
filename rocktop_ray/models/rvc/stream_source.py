"""The sine source, block by block: the phase at which a block ended is carried into the next."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from rocktop_ray.models.rvc.source import (
    PhaseSum,
    cycles_within,
    frame_turns,
    slipping_within,
    sounding,
    turn_error,
)

_MOST_TURNS = 4096.0
"""Beyond this the sum over frames drops full turns. Its float32 rounding, which ``source`` keeps, would grow for ever;
a take that is converted as a whole never comes this far, as its chunks are 41 s at most."""


@dataclass(frozen=True)
class Phase:
    """Cycles before the next frame, and what full turns have left of float32's rounding: each ``[harmonics]``."""

    cycles: Tensor
    slipped: Tensor


def start_phase(overtones: int) -> Phase:
    """The phase before the first frame."""
    return Phase(*torch.zeros(2, 1 + overtones, dtype=torch.float64))


def sines_from(
    phase: Phase, f0: Tensor, *, hop: int, sample_rate: int, phase_sum: PhaseSum, noise: Tensor | None = None
) -> tuple[Phase, Tensor]:
    """F0 ``[frames]`` in Hz -> the phase after them, and their sines and noise ``[frames * hop, harmonics]``.

    As ``source.sine_source`` makes them of the whole; ``noise`` has the shape of the result. Raises ValueError for the
    sum over gliding F0, which needs the frame that follows.
    """
    harmonics = len(phase.cycles)
    steps = f0.float()[:, None] * torch.arange(1, harmonics + 1) / sample_rate
    if phase_sum == "frames":
        sums = torch.cat([phase.cycles[None], frame_turns(steps, hop)]).cumsum(0)
        cycles = cycles_within(steps, sums[:-1], hop)
        last = sums[-1]
        after = Phase(torch.where(last.abs() > _MOST_TURNS, last.fmod(1.0), last), phase.slipped)
    elif phase_sum == "samples":
        steps = steps % 1.0
        sums = torch.cat([phase.cycles[None], steps.double() * hop]).cumsum(0)
        slips = torch.cat([phase.slipped[None], turn_error(steps) * sums.floor().diff(dim=0)]).cumsum(0)
        cycles = slipping_within(steps, sums[:-1], slips[:-1], hop)
        after = Phase(sums[-1], slips[-1])
    else:
        raise ValueError(f"a source that sums over {phase_sum} F0 has no streaming form")
    voiced = (f0 > 0)[:, None].repeat_interleave(hop, 0)
    return after, sounding(cycles.flatten(0, 1), voiced, noise)
