"""Latent frames of streams to wave: the exact streaming forms behind one face."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np

from rocktop_ray.errors import SettingsError
from rocktop_ray.live.acoustic import Sound
from rocktop_ray.models.rvc.stream import DecoderState, DecoderStream
from rocktop_ray.models.rvc.voice import RvcVoice
from rocktop_ray.models.singer import stream as singer
from rocktop_ray.models.singer.voice import SingerVoice
from rocktop_ray.protocols import Array, Noise, VoiceModel

VocoderState = DecoderState | singer.VocoderState


class VocoderStream(Protocol):
    """What the converter needs. ``delay`` is in samples of the voice's rate."""

    delay: int

    def begin(self) -> VocoderState:
        """The state before the first frame."""
        ...

    def step(
        self,
        states: Sequence[VocoderState],
        sounds: Sequence[Sound],
        speakers: Sequence[int],
        noise: Sequence[Noise],
        rows: Sequence[int],
    ) -> tuple[list[VocoderState], list[Array]]:
        """Latent ``[latent_dim, frames]`` of each stream -> wave ``[frames * hop]``, ``delay`` samples earlier.

        ``rows`` are those of the noise's table for the first new frame of each stream.
        """
        ...


class RvcVocoder:
    """The HiFi-GAN decoder of an RVC voice. Streams go through it one after the other."""

    def __init__(self, voice: RvcVoice) -> None:
        self._voice = voice
        self._stream: DecoderStream = voice.decoder_stream()
        self.delay = self._stream.delay

    def begin(self) -> DecoderState:
        """The state before the first frame."""
        return self._stream.begin()

    def step(
        self,
        states: Sequence[VocoderState],
        sounds: Sequence[Sound],
        speakers: Sequence[int],
        noise: Sequence[Noise],
        rows: Sequence[int],
    ) -> tuple[list[VocoderState], list[Array]]:
        """See ``VocoderStream``."""
        after: list[VocoderState] = []
        waves = []
        for state, sound, speaker, drawn, row in zip(states, sounds, speakers, noise, rows, strict=True):
            assert isinstance(state, DecoderState)
            f0 = sound.melody.f0[: sound.latent.shape[1]] if self._voice.spec.uses_f0 else None
            embedded = self._voice.speaker_embedding(speaker)
            offset = row - state.frames
            state, wave = self._stream.step(state, sound.latent, f0, embedded, noise=drawn, frame_offset=offset)
            after.append(state)
            waves.append(wave)
        return after, waves


class SingerVocoder:
    """The source-filter vocoder of the bundle's voice."""

    def __init__(self, voice: SingerVoice) -> None:
        self._stream = voice.vocoder_stream()
        self.delay = self._stream.delay

    def begin(self) -> singer.VocoderState:
        """The state before the first frame."""
        return self._stream.begin()

    def step(
        self,
        states: Sequence[VocoderState],
        sounds: Sequence[Sound],
        speakers: Sequence[int],
        noise: Sequence[Noise],
        rows: Sequence[int],
    ) -> tuple[list[VocoderState], list[Array]]:
        """See ``VocoderStream``."""
        known = [state for state in states if isinstance(state, singer.VocoderState)]
        latent = np.stack([sound.latent for sound in sounds])
        f0 = np.stack([sound.melody.filled[: latent.shape[2]] for sound in sounds])
        offsets = [row - state.frames for state, row in zip(known, rows, strict=True)]
        after, waves = self._stream.step_many(known, latent, f0, noise, offsets)
        return list(after), waves


def vocoder_stream(voice: VoiceModel) -> VocoderStream:
    """The streaming form of a voice's vocoder. Raises SettingsError for a voice that has none."""
    if isinstance(voice, SingerVoice):
        return SingerVocoder(voice)
    if isinstance(voice, RvcVoice):
        return RvcVocoder(voice)
    raise SettingsError(f"a voice of the kind {type(voice).__name__} cannot be streamed", stage="vocoder")
