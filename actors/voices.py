"""The facts of a voice, for those who work with it from another process."""

from __future__ import annotations

from dataclasses import dataclass

from rocktop_ray.protocols import VoiceSpec
from rocktop_ray.voices.open import Voice


@dataclass(frozen=True)
class VoiceAbout:
    """The facts of a voice that a conversion needs where the voice itself is elsewhere."""

    spec: VoiceSpec
    index_dim: int | None
    """Width of its retrieval index; None if it has none."""
    median_f0: float | None
    default_extractor: str | None
    version: str
    family: str

    @classmethod
    def of(cls, voice: Voice) -> VoiceAbout:
        """The facts of ``voice``."""
        index = None if voice.index is None else voice.index.dim
        info = voice.info
        return cls(voice.model.spec, index, info.median_f0, voice.default_extractor, info.version, info.family)
