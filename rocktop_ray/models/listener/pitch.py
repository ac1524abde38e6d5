"""The listener's pitch branch alone, as an F0 source of streams whose units come from elsewhere.

Each frame is computed once; what comes out does not depend on blocks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from rocktop_ray.errors import AudioError
from rocktop_ray.models.listener.causal import apart, settle, stacked
from rocktop_ray.models.listener.front import HOP
from rocktop_ray.models.listener.network import ListenerNet, melody


@dataclass(frozen=True)
class PitchState:
    """A stream under way. Sizes never change."""

    held: tuple[Tensor, ...]
    """The last samples, and what the branch's blocks remember."""


class PitchStream:
    """F0 of streams by a ``ListenerNet``. Streams that are stepped together do not touch each other."""

    def __init__(self, net: ListenerNet) -> None:
        self._net = net.eval().requires_grad_(False)
        settle(net)
        self.lag = net.config.lag
        """Frames of 10 ms by which the output is behind the audio."""

    def begin(self) -> PitchState:
        """The state before the first sample: silence so far."""
        return PitchState((torch.zeros(self._net.front.before), self._net.pitch.begin()))

    @torch.inference_mode()
    def step(self, states: Sequence[PitchState], audio: Tensor) -> tuple[list[PitchState], Tensor]:
        """Audio ``[streams, n * 160]`` at 16 kHz -> F0 ``[streams, n]`` in Hz, 0 where unvoiced.

        Frame i of what comes out is frame i - lag of the stream. The states given stay as they are. Raises AudioError
        for audio of another shape.
        """
        if audio.ndim != 2 or len(audio) != len(states) or not len(states) or audio.shape[1] % HOP:
            raise AudioError(
                f"the listener needs [{len(states)}, n * {HOP}] samples, not {list(audio.shape)}", stage="pitch"
            )
        if not audio.shape[1]:
            return list(states), audio.new_zeros(len(audio), 0)
        net = self._net
        past, before = stacked([state.held for state in states])
        joined = torch.cat([past, audio.float()], 1)
        _, long, likeness = net.front(joined)
        kept, x = net.pitch(before, net.pitch_in(torch.cat([likeness, long], -1)))
        salience = net.pitch_head(net.pitch_norm(x))
        after = apart((joined[:, audio.shape[1] :], kept))
        return [PitchState(held) for held in after], melody(salience[..., :-1], salience[..., -1])
