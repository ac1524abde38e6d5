"""The acoustic models, and the retrieval indexes, of the voices of one process."""

from __future__ import annotations

from typing import Any

from actors.arrays import own
from actors.voice_cache import VoiceCache
from actors.voices import VoiceAbout
from rocktop_ray.errors import IndexFormatError
from rocktop_ray.protocols import Array, Noise


class AcousticActor:
    """The first half of voices. ``ref`` names a voice as ``voices`` understands it. Safe in threads."""

    def __init__(self, voices: VoiceCache[Any]) -> None:
        self.voices = voices

    def about(self, ref: Any) -> tuple[VoiceAbout, float]:
        """The voice's facts, and the seconds spent on loading it, 0 if it was. Raises RocktopError."""
        with self.voices.lease(ref) as held:
            return VoiceAbout.of(held.voice), held.loaded_seconds

    def blend(self, ref: Any, units: Array, rate: float) -> Array:
        """Units ``[frames, dim]`` drawn by ``rate`` 0..1 towards the voice's index: see ``RetrievalIndex``."""
        with self.voices.lease(ref) as held:
            if held.voice.index is None:
                raise IndexFormatError("the voice has lost its retrieval index: ask again")
            return held.voice.index.search_blend(own(units), rate)

    def latent(
        self,
        ref: Any,
        units: Array,
        f0: Array | None,
        *,
        speaker: int = 0,
        temperature: float = 0.66666,
        noise: Noise | None = None,
        frame_offset: int = 0,
    ) -> Array:
        """See ``protocols.AcousticModel.latent``. Raises RocktopError."""
        with self.voices.lease(ref) as held:
            return held.voice.model.latent(
                own(units),
                None if f0 is None else own(f0),
                speaker=speaker,
                temperature=temperature,
                noise=noise,
                frame_offset=frame_offset,
            )
