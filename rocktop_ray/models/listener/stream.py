"""The listener as streams: any number of them at a time, each with its own state.

``ListenerStream`` hears units and F0, ``PitchStream`` F0 alone, for streams whose units come from elsewhere. Each frame
is computed once; what comes out does not depend on blocks.
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
class ListenerState:
    """A stream under way. Sizes never change."""

    held: tuple[Tensor, ...]
    """What the network remembers."""


class _Stream:
    """What both have."""

    def __init__(self, net: ListenerNet) -> None:
        self._net = net.eval().requires_grad_(False)
        settle(net)
        self.lag = net.config.lag
        """Frames of 10 ms by which the output is behind the audio."""


class ListenerStream(_Stream):
    """Units and F0 of streams. Those that are stepped together do not touch each other."""

    def begin(self) -> ListenerState:
        """The state before the first sample: silence so far."""
        return ListenerState(self._net.begin())

    @torch.inference_mode()
    def step(self, states: Sequence[ListenerState], audio: Tensor) -> tuple[list[ListenerState], Tensor, Tensor]:
        """Audio ``[streams, n * 160]`` at 16 kHz -> units ``[streams, n, 512]`` and F0 ``[streams, n]``, 100/s.

        Frame i of what comes out is frame i - lag of the stream, frame j standing at sample 160 * j; what lies before
        the stream's first frame means nothing. F0 is in Hz, 0 where unvoiced. The states given stay as they are.
        Raises AudioError for audio of another shape.
        """
        _check(states, audio, "content")
        if not audio.shape[1]:
            return list(states), audio.new_zeros(len(audio), 0, self._net.config.units), audio.new_zeros(len(audio), 0)
        kept, heard = self._net.step(stacked([state.held for state in states]), audio.float())
        return [ListenerState(held) for held in apart(kept)], heard.units, melody(heard.salience, heard.voicing)


class PitchStream(_Stream):
    """F0 of streams, by the pitch branch alone. Those that are stepped together do not touch each other."""

    def begin(self) -> ListenerState:
        """The state before the first sample: silence so far."""
        return ListenerState(self._net.begin_pitch())

    @torch.inference_mode()
    def step(self, states: Sequence[ListenerState], audio: Tensor) -> tuple[list[ListenerState], Tensor]:
        """As ``ListenerStream.step``, without units."""
        _check(states, audio, "pitch")
        if not audio.shape[1]:
            return list(states), audio.new_zeros(len(audio), 0)
        kept, heard = self._net.step_pitch(stacked([state.held for state in states]), audio.float())
        return [ListenerState(held) for held in apart(kept)], melody(heard.salience, heard.voicing)


def _check(states: Sequence[ListenerState], audio: Tensor, stage: str) -> None:
    if audio.ndim != 2 or len(audio) != len(states) or not len(states) or audio.shape[1] % HOP:
        raise AudioError(f"the listener needs [{len(states)}, n * {HOP}] samples, not {list(audio.shape)}", stage=stage)
