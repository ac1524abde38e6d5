"""Latent frames of a stream to wave: the exact streaming forms behind one face."""

from __future__ import annotations

from typing import Protocol

from rocktop_ray.errors import SettingsError
from rocktop_ray.live.melody import Melody
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
        self, state: VocoderState, latent: Array, melody: Melody, speaker: int, noise: Noise, frame_offset: int
    ) -> tuple[VocoderState, Array]:
        """Latent ``[latent_dim, frames]`` and melody -> wave ``[frames * hop]``, ``delay`` samples earlier."""
        ...


class RvcVocoder:
    """The HiFi-GAN decoder of an RVC voice."""

    def __init__(self, voice: RvcVoice) -> None:
        self._voice = voice
        self._stream: DecoderStream = voice.decoder_stream()
        self.delay = self._stream.delay

    def begin(self) -> DecoderState:
        """The state before the first frame."""
        return self._stream.begin()

    def step(
        self, state: VocoderState, latent: Array, melody: Melody, speaker: int, noise: Noise, frame_offset: int
    ) -> tuple[DecoderState, Array]:
        """See ``VocoderStream``."""
        assert isinstance(state, DecoderState)
        f0 = melody.f0[: latent.shape[1]] if self._voice.spec.uses_f0 else None
        embedded = self._voice.speaker_embedding(speaker)
        return self._stream.step(state, latent, f0, embedded, noise=noise, frame_offset=frame_offset)


class SingerVocoder:
    """The source-filter vocoder of the bundle's voice."""

    def __init__(self, voice: SingerVoice) -> None:
        self._stream = voice.vocoder_stream()
        self.delay = self._stream.delay

    def begin(self) -> singer.VocoderState:
        """The state before the first frame."""
        return self._stream.begin()

    def step(
        self, state: VocoderState, latent: Array, melody: Melody, speaker: int, noise: Noise, frame_offset: int
    ) -> tuple[singer.VocoderState, Array]:
        """See ``VocoderStream``."""
        assert isinstance(state, singer.VocoderState)
        f0 = melody.filled[: latent.shape[1]]
        return self._stream.step(state, latent, f0, noise=noise, frame_offset=frame_offset)


def vocoder_stream(voice: VoiceModel) -> VocoderStream:
    """The streaming form of a voice's vocoder. Raises SettingsError for a voice that has none."""
    if isinstance(voice, SingerVoice):
        return SingerVocoder(voice)
    if isinstance(voice, RvcVoice):
        return RvcVocoder(voice)
    raise SettingsError(f"a voice of the kind {type(voice).__name__} cannot be streamed", stage="vocoder")
