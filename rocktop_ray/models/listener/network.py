"""The listener: a causal network that gives content units and F0 of a stream as it is heard.

It was distilled from the bundle's encoder and extractor, which need the whole take. Two branches of causal ConvNeXt
blocks: a narrow one for the pitch (a salience over classes of 20 cents, and voicing), and a wide one for the units,
which also hears the narrow one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from rocktop_ray.models.listener.causal import CausalStack, LeakyMean
from rocktop_ray.models.listener.front import BINS, HOP, LONG_BANDS, SHORT_BANDS, Front, class_hz
from rocktop_ray.models.packed_linear import RowLinear

_AROUND = 4
"""Classes to each side of the strongest that take part in a frame's F0."""


@dataclass(frozen=True)
class ListenerConfig:
    """Everything that shapes the weights."""

    units: int = 512
    width: int = 256
    expansion: int = 2
    kernel: int = 7
    dilations: tuple[int, ...] = (1, 1, 2, 2, 4, 4, 8, 1)
    pitch_width: int = 160
    pitch_dilations: tuple[int, ...] = (1, 2, 4, 1)
    mean_rows: int = 300
    """Rows over which the mean spectrum forgets."""
    lag: int = 2
    """Frames by which the output is behind the audio."""


class HeardPitch(NamedTuple):
    """What the pitch branch makes of ``n`` frames of audio. Row j is for frame j - lag."""

    salience: Tensor
    """Logits of the pitch classes ``[batch, n, 288]``."""
    voicing: Tensor
    """Logit of the frame being voiced ``[batch, n]``."""
    short: Tensor
    long: Tensor
    """Log-mel spectra, see ``Front``."""
    melody: Tensor
    """What the content branch hears of this one ``[batch, n, pitch_width]``."""


class Heard(NamedTuple):
    """What the network makes of ``n`` frames of audio. Row j is for frame j - lag."""

    units: Tensor
    """``[batch, n, units]``"""
    salience: Tensor
    voicing: Tensor
    """As in ``HeardPitch``."""


class ListenerNet(nn.Module):
    """The weights, and the step that both forms share."""

    def __init__(self, config: ListenerConfig) -> None:
        super().__init__()
        self.config = config
        self.front = Front()
        self.mean = LeakyMean(config.mean_rows)
        self.pitch_in = RowLinear(BINS + LONG_BANDS, config.pitch_width)
        self.pitch = CausalStack(config.pitch_width, config.expansion, config.kernel, config.pitch_dilations)
        self.pitch_norm = nn.LayerNorm(config.pitch_width)
        self.pitch_head = RowLinear(config.pitch_width, BINS + 1)
        self.content_in = RowLinear(2 * SHORT_BANDS + LONG_BANDS + config.pitch_width, config.width)
        self.content = CausalStack(config.width, config.expansion, config.kernel, config.dilations)
        self.content_norm = nn.LayerNorm(config.width)
        self.content_head = RowLinear(config.width, config.units)

    def begin_pitch(self) -> tuple[Tensor, ...]:
        """What the pitch branch remembers before the first sample: audio, then its blocks."""
        return (torch.zeros(self.front.before), self.pitch.begin())

    def step_pitch(self, held: tuple[Tensor, ...], audio: Tensor) -> tuple[tuple[Tensor, ...], HeardPitch]:
        """``step`` of the pitch branch alone."""
        past, before = held
        joined = torch.cat([past, audio], 1)
        short, long, likeness = self.front(joined)
        after, x = self.pitch(before, self.pitch_in(torch.cat([likeness, long], -1)))
        melody = self.pitch_norm(x)
        logits = self.pitch_head(melody)
        heard = HeardPitch(logits[..., :-1], logits[..., -1], short, long, melody)
        return (joined[:, audio.shape[1] :], after), heard

    def begin(self) -> tuple[Tensor, ...]:
        """What is remembered before the first sample: audio, mean, then the blocks of each branch."""
        audio, pitch = self.begin_pitch()
        return (audio, self.mean.begin(SHORT_BANDS), pitch, self.content.begin())

    def step(self, held: tuple[Tensor, ...], audio: Tensor) -> tuple[tuple[Tensor, ...], Heard]:
        """Remembered (each with a batch dimension), audio ``[batch, n * 160]`` at 16 kHz -> remembered, heard."""
        past, mean, pitch, content = held
        (past, pitch), heard = self.step_pitch((past, pitch), audio)
        mean, typical = self.mean(mean, heard.short)
        y = self.content_in(torch.cat([heard.short, heard.short - typical, heard.long, heard.melody], -1))
        content, y = self.content(content, y)
        units = self.content_head(self.content_norm(y))
        return (past, mean, pitch, content), Heard(units, heard.salience, heard.voicing)

    def forward(self, audio: Tensor) -> Heard:
        """The whole: audio ``[batch, n * 160]`` at 16 kHz -> heard, ``n`` rows."""
        batch = audio.shape[0]
        held = tuple(tensor.expand(batch, *tensor.shape) for tensor in self.begin())
        return self.step(held, audio)[1]


def melody(salience: Tensor, voicing: Tensor) -> Tensor:
    """Logits of classes ``[.., 288]`` and of voicing ``[..]`` -> F0 in Hz ``[..]``, 0 where unvoiced.

    The weighted mean of the classes around the strongest, as FCPE and CREPE decode theirs.
    """
    best = salience.argmax(-1, keepdim=True)
    around = (best + torch.arange(-_AROUND, _AROUND + 1)).clamp(0, BINS - 1)
    weights = torch.sigmoid(salience.gather(-1, around))
    place = (weights * around).sum(-1) / weights.sum(-1).clamp_min(1e-9)
    return torch.where(voicing > 0, class_hz(place), 0.0)


def frames_of(samples: int) -> int:
    """Whole frames in so many samples."""
    return samples // HOP
