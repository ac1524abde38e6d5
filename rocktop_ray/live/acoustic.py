"""Units and melody of a stream to latent frames, with a stated look-ahead.

An acoustic model sees further ahead than a stream can wait. It gets the frames that it is asked for and ``ahead`` more
that are not sure yet; beyond those it finds what it finds at the end of a take.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from rocktop_ray.live.melody import Melody
from rocktop_ray.models.singer.stream import NetState, NetStream
from rocktop_ray.models.singer.voice import SingerVoice
from rocktop_ray.protocols import Array, Noise, VoiceModel


@dataclass(frozen=True)
class WindowState:
    """Frames so far, and the last units ``[left, dim]`` and F0 ``[left]``."""

    frames: int
    units: Array
    f0: Array


AcousticState = WindowState | NetState


@dataclass(frozen=True)
class Draws:
    """Where an acoustic model's noise comes from, and how much of it."""

    noise: Noise
    frame_offset: int
    """Row of the table that belongs to the stream's first frame."""
    temperature: float


class AcousticStream(Protocol):
    """What the converter needs."""

    def begin(self) -> AcousticState:
        """The state before the first frame."""
        ...

    def step(
        self, state: AcousticState, units: Array, melody: Melody, fresh: int, speaker: int, draws: Draws
    ) -> tuple[AcousticState, Array]:
        """Units ``[fresh + ahead, dim]`` at 100/s and their melody -> latent ``[latent_dim, fresh]``."""
        ...


class WindowedAcoustic:
    """Any voice: the model runs over ``left`` frames of the past, the new ones and those ahead."""

    def __init__(self, voice: VoiceModel, left: int) -> None:
        self._voice, self._left = voice, left

    def begin(self) -> WindowState:
        """The state before the first frame."""
        return WindowState(
            0, np.zeros((self._left, self._voice.spec.content.dim), np.float32), np.zeros(self._left, np.float32)
        )

    def step(
        self, state: AcousticState, units: Array, melody: Melody, fresh: int, speaker: int, draws: Draws
    ) -> tuple[WindowState, Array]:
        """See ``AcousticStream``."""
        assert isinstance(state, WindowState)
        past = min(self._left, state.frames)
        seen = np.concatenate([state.units, units])
        f0 = np.concatenate([state.f0, melody.f0])
        latent = self._voice.latent(
            seen[self._left - past :],
            f0[self._left - past :] if self._voice.spec.uses_f0 else None,
            speaker=speaker,
            temperature=draws.temperature,
            noise=draws.noise,
            frame_offset=draws.frame_offset + state.frames - past,
        )[:, past : past + fresh]
        after = WindowState(
            state.frames + fresh, seen[fresh : fresh + self._left].copy(), f0[fresh : fresh + self._left].copy()
        )
        return after, latent


class SingerAcoustic:
    """The bundle's network: each frame is computed once, but for those within its reach, which are computed again."""

    def __init__(self, stream: NetStream) -> None:
        self._stream = stream

    def begin(self) -> NetState:
        """The state before the first frame."""
        return self._stream.begin()

    def step(
        self, state: AcousticState, units: Array, melody: Melody, fresh: int, speaker: int, draws: Draws
    ) -> tuple[NetState, Array]:
        """See ``AcousticStream``; nothing is drawn."""
        assert isinstance(state, NetState)
        stream, ahead = self._stream, len(units) - fresh
        voiced = (melody.f0 > 0).astype(np.float32)
        after, settled = stream.step(state, units[:fresh], melody.filled[:fresh], voiced[:fresh], speaker)
        # From here on, frames that the state does not keep: they come again with the next block.
        coming, parts = after, [settled]
        if ahead:
            coming, more = stream.step(after, units[fresh:], melody.filled[fresh:], voiced[fresh:], speaker)
            parts.append(more)
        if ahead + fresh <= stream.lag:
            return after, stream.early(coming, stream.lag - ahead, fresh)
        parts.append(stream.early(coming, max(0, stream.lag - ahead)))
        return after, np.concatenate(parts, axis=1)[:, stream.lag : stream.lag + fresh]


def acoustic_stream(voice: VoiceModel, left: int) -> AcousticStream:
    """The streaming form of a voice's acoustic model."""
    return SingerAcoustic(voice.net_stream()) if isinstance(voice, SingerVoice) else WindowedAcoustic(voice, left)
