"""The listener as a stream: any number of streams at a time, each with its own state."""

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
    """The last samples, the mean spectrum, and what the blocks of each branch remember."""


class ListenerStream:
    """The streaming form of a ``ListenerNet``. Streams that are stepped together do not touch each other."""

    def __init__(self, net: ListenerNet) -> None:
        self._net = net.eval().requires_grad_(False)
        settle(net)
        self.lag = net.config.lag
        """Frames of 10 ms by which the output is behind the audio."""

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
        if audio.ndim != 2 or len(audio) != len(states) or not len(states) or audio.shape[1] % HOP:
            raise AudioError(
                f"the listener needs [{len(states)}, n * {HOP}] samples, not {list(audio.shape)}", stage="content"
            )
        if not audio.shape[1]:
            return list(states), audio.new_zeros(len(audio), 0, self._net.config.units), audio.new_zeros(len(audio), 0)
        kept, heard = self._net.step(stacked([state.held for state in states]), audio.float())
        return [ListenerState(held) for held in apart(kept)], heard.units, melody(heard.salience, heard.voicing)
