"""What is known about a voice, as plain data: for listings, manifests and metadata of results."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any

from rocktop_ray.errors import VoiceFormatError


@dataclass(frozen=True)
class VoiceInfo:
    """The facts of one voice. Texts are empty and numbers 0 or None where a fact is not known."""

    name: str
    family: str
    """Which network: ``rvc`` or ``singer``."""
    sample_rate: int
    uses_f0: bool
    content_name: str
    """The content units that it sings, e.g. ``hubert-v2``."""
    content_dim: int
    speakers: int
    decoder: str
    version: str = ""
    """RVC version, ``v1`` or ``v2``."""
    info: str = ""
    """The file's own free text."""
    licence: str = ""
    training_data: str = ""
    """Fingerprint of the training data."""
    source: str = ""
    """Name of the file that it came from."""
    sha256: str = ""
    """Hash of the voice file in the library."""
    source_sha256: str = ""
    """Hash of the file that was imported."""
    size: int = 0
    """Bytes of the voice file in the library."""
    imported: str = ""
    """When, ISO 8601 UTC."""
    index_vectors: int = 0
    """Units in its retrieval index; 0 = it has none."""
    index_bytes: int = 0
    index_sha256: str = ""
    median_f0: float | None = None
    """Hz: the middle of its training melodies, if known; for suggesting a key."""
    default_extractor: str | None = None
    """The pitch extractor that suits it, if it says so."""
    defaults: dict[str, Any] = field(default_factory=dict)
    """Settings of the conversion that suit it, by name."""
    extra: dict[str, Any] = field(default_factory=dict)
    """What else the file said, e.g. Applio's epoch and author."""

    def as_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, data: Any) -> VoiceInfo:
        """The reverse of ``as_dict``; unknown keys are left out. Raises VoiceFormatError if it is not of that form."""
        if not isinstance(data, dict):
            raise VoiceFormatError("a voice manifest must be an object")
        known = {entry.name: data[entry.name] for entry in dataclasses.fields(cls) if entry.name in data}
        try:
            info = cls(**known)
        except TypeError as error:
            raise VoiceFormatError(f"a voice manifest lacks facts: {error}") from error
        wrong = [name for name, kind in _KINDS.items() if type(getattr(info, name)) is not kind]
        if wrong:
            raise VoiceFormatError(f"a voice manifest has wrong types: {', '.join(wrong)}")
        return info


_KINDS: dict[str, type] = {
    **dict.fromkeys(("name", "family", "content_name", "decoder", "version", "licence", "source", "sha256"), str),
    **dict.fromkeys(("sample_rate", "content_dim", "speakers", "size", "index_vectors", "index_bytes"), int),
    **dict.fromkeys(("uses_f0",), bool),
    **dict.fromkeys(("defaults", "extra"), dict),
}
