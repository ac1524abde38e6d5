"""The vocoders of the voices of one process."""

from __future__ import annotations

from typing import Any

from actors.arrays import own
from actors.voice_cache import VoiceCache
from rocktop_ray.protocols import Array, Noise


class VocoderActor:
    """The second half of voices. ``ref`` names a voice as ``voices`` understands it. Safe in threads."""

    def __init__(self, voices: VoiceCache[Any]) -> None:
        self.voices = voices

    def prepare(self, ref: Any) -> None:
        """Make the voice ready. Raises RocktopError."""
        with self.voices.lease(ref):
            pass

    def wave(
        self,
        ref: Any,
        latent: Array,
        f0: Array | None,
        *,
        speaker: int = 0,
        noise: Noise | None = None,
        frame_offset: int = 0,
        start: int = 0,
        stop: int | None = None,
    ) -> Array:
        """See ``protocols.Vocoder.wave``. Raises RocktopError."""
        with self.voices.lease(ref) as held:
            return held.voice.model.wave(
                own(latent),
                None if f0 is None else own(f0),
                speaker=speaker,
                noise=noise,
                frame_offset=frame_offset,
                start=start,
                stop=stop,
            )
