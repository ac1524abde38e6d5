"""Units and melody of streams to latent frames.

The live net of a voice is causal but for a stated lag. Other acoustic models see further ahead than a stream can wait:
they get the frames that they are asked for and those ahead that are not sure yet; beyond those they find what they find
at the end of a take. What they know of frames before is kept.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch

from rocktop_ray.errors import SettingsError
from rocktop_ray.live.melody import DEFAULT_HZ, Melody
from rocktop_ray.models.rvc.latent_stream import LatentState
from rocktop_ray.models.rvc.pitch_bins import coarse_pitch
from rocktop_ray.models.rvc.voice import RvcVoice
from rocktop_ray.models.singer.filters import LOWEST
from rocktop_ray.models.singer.live_net import LiveNet
from rocktop_ray.models.singer.live_net import LiveState as LiveNetState
from rocktop_ray.models.singer.stream import NetState, NetStream
from rocktop_ray.models.singer.voice import SingerVoice
from rocktop_ray.protocols import Array, Noise, VoiceModel


@dataclass(frozen=True)
class LaggingState:
    """A live net under way, and the melody of the frames that it still holds back: ``[lag]`` each."""

    frames: int
    net: LiveNetState
    f0: Array
    filled: Array


AcousticState = LatentState | NetState | LaggingState


@dataclass(frozen=True)
class Draws:
    """Where an acoustic model's noise comes from, and how much of it."""

    noise: Noise
    row: int
    """Of the table, for the first frame of the block."""
    temperature: float


@dataclass(frozen=True)
class Sound:
    """Latent frames ``[latent_dim, frames]`` and the melody that goes with them."""

    latent: Array
    melody: Melody


class AcousticStream(Protocol):
    """What the converter needs."""

    lag: int
    """Frames by which the latent is behind the units."""
    warming: int
    """Frames after ``begin``, within a take, until the latent is worth hearing."""

    def begin(self) -> AcousticState:
        """The state before the first frame."""
        ...

    def step(
        self,
        states: Sequence[AcousticState],
        units: Sequence[Array],
        melodies: Sequence[Melody],
        fresh: int,
        speakers: Sequence[int],
        draws: Sequence[Draws],
    ) -> tuple[list[AcousticState], list[Sound]]:
        """Units ``[fresh + ahead, dim]`` at 100/s and melody of each stream -> ``fresh`` latent frames."""
        ...


class RvcAcoustic:
    """Prior encoder and flow of an RVC voice, with ``left`` frames of context."""

    def __init__(self, voice: RvcVoice, left: int) -> None:
        self._voice, self._stream, self.lag, self.warming = voice, voice.latent_stream(left), 0, 0

    def begin(self) -> LatentState:
        """The state before the first frame."""
        return self._stream.begin()

    def step(
        self,
        states: Sequence[AcousticState],
        units: Sequence[Array],
        melodies: Sequence[Melody],
        fresh: int,
        speakers: Sequence[int],
        draws: Sequence[Draws],
    ) -> tuple[list[AcousticState], list[Sound]]:
        """See ``AcousticStream``."""
        known = [state for state in states if isinstance(state, LatentState)]
        content, spec = np.stack(units), self._voice.spec
        frames, pitch = content.shape[1], None
        if spec.uses_f0:
            pitch = torch.from_numpy(np.stack([coarse_pitch(melody.f0[:frames]) for melody in melodies]))
        drawn = [
            draw.noise.normal("prior", draw.row, frames, spec.latent_dim) * np.float32(draw.temperature)
            for draw in draws
        ]
        embedded = torch.stack([self._voice.speaker_embedding(number) for number in speakers])
        noise = torch.from_numpy(np.stack(drawn))
        after, latent = self._stream.step_many(known, torch.from_numpy(content), pitch, embedded, noise, fresh)
        return list(after), [Sound(own, melody) for own, melody in zip(latent.numpy(), melodies, strict=True)]


class SingerAcoustic:
    """The bundle's full network: frames within its reach are computed again with every block."""

    def __init__(self, stream: NetStream) -> None:
        self._stream, self.lag, self.warming = stream, 0, 0

    def begin(self) -> NetState:
        """The state before the first frame."""
        return self._stream.begin()

    def step(
        self,
        states: Sequence[AcousticState],
        units: Sequence[Array],
        melodies: Sequence[Melody],
        fresh: int,
        speakers: Sequence[int],
        draws: Sequence[Draws],
    ) -> tuple[list[AcousticState], list[Sound]]:
        """See ``AcousticStream``; nothing is drawn."""
        known = [state for state in states if isinstance(state, NetState)]
        content, stream = np.stack(units), self._stream
        filled = np.stack([melody.filled for melody in melodies])
        voiced = np.stack([melody.f0 > 0 for melody in melodies]).astype(np.float32)
        ahead = content.shape[1] - fresh
        after, settled = stream.step_many(known, content[:, :fresh], filled[:, :fresh], voiced[:, :fresh], speakers)
        # From here on, frames that the state does not keep: they come again with the next block.
        coming, parts = after, [settled]
        if ahead:
            coming, more = stream.step_many(after, content[:, fresh:], filled[:, fresh:], voiced[:, fresh:], speakers)
            parts.append(more)
        if ahead + fresh <= stream.lag:
            latent = stream.early_many(coming, stream.lag - ahead, fresh)
        else:
            if ahead < stream.lag:
                parts.append(stream.early_many(coming, stream.lag - ahead))
            latent = np.concatenate(parts, axis=2)[:, :, stream.lag : stream.lag + fresh]
        return list(after), [Sound(own, melody) for own, melody in zip(latent, melodies, strict=True)]


class LiveAcoustic:
    """A voice's live net: every frame is computed once."""

    def __init__(self, net: LiveNet) -> None:
        self._net, self.lag, self.warming = net, net.lag, 20

    def begin(self) -> LaggingState:
        """The state before the first frame."""
        f0 = np.zeros(self.lag, np.float32)
        return LaggingState(0, self._net.begin(), f0, f0 + np.float32(DEFAULT_HZ))

    def step(
        self,
        states: Sequence[AcousticState],
        units: Sequence[Array],
        melodies: Sequence[Melody],
        fresh: int,
        speakers: Sequence[int],
        draws: Sequence[Draws],
    ) -> tuple[list[AcousticState], list[Sound]]:
        """See ``AcousticStream``; nothing is drawn. Before frame 0 the voice is silent."""
        known = [state for state in states if isinstance(state, LaggingState)]
        f0 = np.stack([melody.f0 for melody in melodies])
        filled = np.stack([melody.filled for melody in melodies])
        nets, made = self._net.step(
            [state.net for state in known],
            torch.from_numpy(np.stack(units)),
            torch.from_numpy(filled),
            torch.from_numpy((f0 > 0).astype(np.float32)),
            list(speakers),
        )
        after: list[AcousticState] = []
        sounds = []
        for state, net, latent, sung, held in zip(known, nets, made.numpy(), f0, filled, strict=True):
            late, late_held = np.concatenate([state.f0, sung]), np.concatenate([state.filled, held])
            own = latent.copy()
            own[:, : max(0, self.lag - state.frames)] = LOWEST
            sounds.append(Sound(own, Melody(late[:fresh], late_held[:fresh])))
            after.append(LaggingState(state.frames + fresh, net, late[fresh:].copy(), late_held[fresh:].copy()))
        return after, sounds


def acoustic_stream(voice: VoiceModel, left: int, live: LiveNet | None = None) -> AcousticStream:
    """The streaming form of a voice's acoustic model; ``live`` takes its place. Raises SettingsError if it has none."""
    if live is not None:
        return LiveAcoustic(live)
    if isinstance(voice, SingerVoice):
        return SingerAcoustic(voice.net_stream())
    if isinstance(voice, RvcVoice):
        return RvcAcoustic(voice, left)
    raise SettingsError(f"a voice of the kind {type(voice).__name__} cannot be streamed", stage="acoustic")
