"""Units and melody of streams to latent frames.

The live net of a voice is causal but for a stated lag. Other acoustic models see further ahead than a stream can wait:
they get the frames that they are asked for and those ahead that are not sure yet; beyond those they find what they find
at the end of a take.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch

from rocktop_ray.live.melody import DEFAULT_HZ, Melody
from rocktop_ray.models.rvc.voice import RvcVoice
from rocktop_ray.models.singer.filters import LOWEST
from rocktop_ray.models.singer.live_net import LiveNet
from rocktop_ray.models.singer.live_net import LiveState as LiveNetState
from rocktop_ray.models.singer.stream import NetState, NetStream
from rocktop_ray.models.singer.voice import SingerVoice
from rocktop_ray.protocols import Array, Noise, VoiceModel


@dataclass(frozen=True)
class WindowState:
    """Frames so far, and the last units ``[left, dim]`` and F0 ``[left]``."""

    frames: int
    units: Array
    f0: Array


@dataclass(frozen=True)
class LaggingState:
    """A live net under way, and the melody of the frames that it still holds back: ``[lag]`` each."""

    frames: int
    net: LiveNetState
    f0: Array
    filled: Array


AcousticState = WindowState | NetState | LaggingState


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


class WindowedAcoustic:
    """Any voice: the model runs over ``left`` frames of the past, the new ones and those ahead."""

    def __init__(self, voice: VoiceModel, left: int) -> None:
        self._voice, self._left, self.lag, self.warming = voice, left, 0, 0

    def begin(self) -> WindowState:
        """The state before the first frame."""
        return WindowState(
            0, np.zeros((self._left, self._voice.spec.content.dim), np.float32), np.zeros(self._left, np.float32)
        )

    def step(
        self,
        states: Sequence[AcousticState],
        units: Sequence[Array],
        melodies: Sequence[Melody],
        fresh: int,
        speakers: Sequence[int],
        draws: Sequence[Draws],
    ) -> tuple[list[AcousticState], list[Sound]]:
        """See ``AcousticStream``. Streams with equally much past go through the model together, if it is RVC's."""
        known = [state for state in states if isinstance(state, WindowState)]
        seen = [np.concatenate([state.units, each]) for state, each in zip(known, units, strict=True)]
        f0 = [np.concatenate([state.f0, each.f0]) for state, each in zip(known, melodies, strict=True)]
        pasts = [min(self._left, state.frames) for state in known]
        latents: dict[int, Array] = {}
        for past in set(pasts):
            places = [place for place, each in enumerate(pasts) if each == past]
            latent = self._latents(
                np.stack([seen[place][self._left - past :] for place in places]),
                np.stack([f0[place][self._left - past :] for place in places]),
                [speakers[place] for place in places],
                [draws[place] for place in places],
                past,
            )
            latents |= {place: made[:, past : past + fresh] for place, made in zip(places, latent, strict=True)}
        after: list[AcousticState] = [
            WindowState(
                state.frames + fresh, own[fresh : fresh + self._left].copy(), curve[fresh : fresh + self._left].copy()
            )
            for state, own, curve in zip(known, seen, f0, strict=True)
        ]
        return after, [Sound(latents[place], melody) for place, melody in enumerate(melodies)]

    def _latents(
        self, units: Array, f0: Array, speakers: Sequence[int], draws: Sequence[Draws], past: int
    ) -> list[Array]:
        voice, pitched = self._voice, self._voice.spec.uses_f0
        if isinstance(voice, RvcVoice) and len(units) > 1:
            tables = [(each.noise, each.row - past, each.temperature) for each in draws]
            return list(voice.latents(units, f0 if pitched else None, speakers, tables))
        return [
            voice.latent(
                each,
                curve if pitched else None,
                speaker=speaker,
                temperature=draw.temperature,
                noise=draw.noise,
                frame_offset=draw.row - past,
            )
            for each, curve, speaker, draw in zip(units, f0, speakers, draws, strict=True)
        ]


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
    """The streaming form of a voice's acoustic model; ``live`` takes its place."""
    if live is not None:
        return LiveAcoustic(live)
    return SingerAcoustic(voice.net_stream()) if isinstance(voice, SingerVoice) else WindowedAcoustic(voice, left)
