"""What is known of a singer voice beside its weights."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class SingerAbout:
    """What a voice file says about itself, beside its sizes."""

    sample_rate: int
    encoder: str
    speakers: tuple[str, ...]
    defaults: dict[str, object] = field(default_factory=dict)
    """Settings of a conversion that suit the voice, by the names of ``ConvertSettings``."""
    default_extractor: str = "fcpe"
    median_f0: float = 0.0
    """Hz, of its training melodies."""
    info: str = ""
    licence: str = ""
    credits: str = ""
    training_data: str = ""
    """SHA-256 over the training set."""
    recipe: dict[str, object] = field(default_factory=dict)
