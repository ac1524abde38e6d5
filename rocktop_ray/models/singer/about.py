"""What is known of a singer voice beside its weights."""

from __future__ import annotations

from dataclasses import dataclass, field

from rocktop_ray.models.about import NetworkAbout


@dataclass(frozen=True, kw_only=True)
class SingerAbout(NetworkAbout):
    """What a voice file says about itself, beside its sizes."""

    sample_rate: int
    """Hz."""
    speakers: tuple[str, ...]
    """Their names."""
    defaults: dict[str, object] = field(default_factory=dict)
    """Settings of a conversion that suit the voice, by the names of ``ConvertSettings``."""
    default_extractor: str = "fcpe"
    median_f0: float = 0.0
    """Hz, of its training melodies."""
