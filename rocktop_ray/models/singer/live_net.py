"""The bundle's frame network for streams: causal but for a stated look-ahead, distilled from ``SingerNet``.

The latent is the same list of log amplitudes, so the voice's own vocoder sings it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from rocktop_ray.errors import SettingsError
from rocktop_ray.models.listener.causal import CausalStack, apart, settle, stacked
from rocktop_ray.models.packed_linear import RowLinear
from rocktop_ray.models.singer.network import REFERENCE_HZ


@dataclass(frozen=True)
class LiveConfig:
    """Everything that shapes the weights."""

    content_dim: int = 512
    width: int = 256
    expansion: int = 2
    kernel: int = 7
    dilations: tuple[int, ...] = (1, 1, 2, 4, 4, 1)
    delays: tuple[int, ...] = (1,)
    """Frames that the first blocks hear ahead, each."""
    speakers: int = 1
    core_dim: int = 112
    high_bands: int = 12
    """Noise bands above the core, predicted from the others."""

    @property
    def latent_dim(self) -> int:
        """Channels of the latent."""
        return self.core_dim + self.high_bands

    @property
    def lag(self) -> int:
        """Frames by which the latent is behind the units."""
        return sum(self.delays)


class LiveFrameNet(nn.Module):
    """The weights, and the step that both forms share."""

    def __init__(self, config: LiveConfig) -> None:
        super().__init__()
        self.config = config
        self.content = RowLinear(config.content_dim, config.width)
        self.pitch = nn.Sequential(nn.Linear(3, 64), nn.GELU(), nn.Linear(64, config.width))
        self.speaker = nn.Embedding(config.speakers, config.width)
        self.stack = CausalStack(config.width, config.expansion, config.kernel, config.dilations, config.delays)
        self.norm = nn.LayerNorm(config.width)
        self.head = RowLinear(config.width, config.core_dim)
        self.high = nn.Linear(config.core_dim, config.high_bands)

    def step(
        self, held: Tensor, units: Tensor, log_f0: Tensor, voiced: Tensor, speaker: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Remembered, and frames ``[batch, n, ..]`` as ``SingerNet.core`` takes them -> remembered, core ``[batch, n,
        core_dim]``; row j is for the frame ``stack.lag`` before.
        """
        melody = self.pitch(torch.stack([log_f0, log_f0.square(), voiced], -1))
        x = self.content(units) + melody + self.speaker(speaker)[:, None]
        held, x = self.stack(held, x)
        return held, self.head(self.norm(x))

    def core(self, units: Tensor, log_f0: Tensor, voiced: Tensor, speaker: Tensor) -> Tensor:
        """The whole: as ``SingerNet.core``, ``stack.lag`` rows late."""
        held = self.stack.begin().expand(len(units), -1, -1)
        return self.step(held, units, log_f0, voiced, speaker)[1]


@dataclass(frozen=True)
class LiveState:
    """A stream under way. Sizes never change."""

    held: Tensor
    """What the blocks remember."""


class LiveNet:
    """The streaming form of a ``LiveFrameNet``. Streams that are stepped together do not touch each other."""

    def __init__(self, net: LiveFrameNet) -> None:
        self._net = net.eval().requires_grad_(False)
        settle(net)
        self.config = net.config
        self.lag = net.stack.lag
        """Frames of 10 ms by which the latent is behind the units."""

    def begin(self) -> LiveState:
        """The state before the first frame."""
        return LiveState(self._net.stack.begin())

    @torch.inference_mode()
    def step(
        self, states: Sequence[LiveState], units: Tensor, f0: Tensor, voiced: Tensor, speaker: Sequence[int]
    ) -> tuple[list[LiveState], Tensor]:
        """Units ``[streams, n, content_dim]`` -> latent ``[streams, latent_dim, n]``, ``lag`` frames earlier.

        What lies before frame 0 means nothing. The states given stay as they are.

        Args:
            states: what came before, one per stream.
            units: at 100/s.
            f0: ``[streams, n]`` in Hz without gaps, all > 0.
            voiced: ``[streams, n]``, 1 where the take is voiced, else 0.
            speaker: number of each stream's speaker.

        Raises SettingsError for a speaker that the voice does not have, and for shapes that do not fit.
        """
        for number in speaker:
            if not 0 <= number < self.config.speakers:
                raise SettingsError(
                    f"this voice has speakers 0 to {self.config.speakers - 1}, not {number}", stage="acoustic"
                )
        streams = len(states)
        shape = (streams, units.shape[1] if units.ndim == 3 else -1)
        if not streams or units.shape != (*shape, self.config.content_dim) or len(speaker) != streams:
            raise SettingsError(
                f"{streams} streams of {len(speaker)} speakers need units [{streams}, n, {self.config.content_dim}], "
                f"not {list(units.shape)}",
                stage="acoustic",
            )
        if f0.shape != shape or voiced.shape != shape:
            raise SettingsError(f"F0 and voicing must be {list(shape)}", stage="acoustic")
        if not shape[1]:
            return list(states), units.new_zeros(streams, self.config.latent_dim, 0)
        log_f0 = torch.log2(f0.double() / REFERENCE_HZ).float()
        (held,) = stacked([(state.held,) for state in states])
        kept, core = self._net.step(held, units.float(), log_f0, voiced.float(), torch.tensor(list(speaker)))
        latent = torch.cat([core, self._net.high(core)], -1).transpose(1, 2)
        return [LiveState(*tensors) for tensors in apart((kept,))], latent
