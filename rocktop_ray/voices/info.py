"""What is known about a voice, as plain data: for listings, manifests and metadata of results."""

from __future__ import annotations

import dataclasses
import json
import math
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


def plain_info(info: VoiceInfo) -> VoiceInfo:
    """The facts of a stranger's file, made fit for JSON and for people.

    Texts lose what cannot be printed, and what exceeds 4096 characters. Of ``extra``, values that are not plain, and
    what exceeds 64 KiB, are left out. Raises VoiceFormatError if ``defaults`` are not plain: they are settings.
    """
    texts: dict[str, Any] = {
        entry.name: _text(value)[:_LONGEST]
        for entry in dataclasses.fields(info)
        if isinstance(value := getattr(info, entry.name), str)
    }
    if not _is_plain(info.defaults) or len(json.dumps(info.defaults)) > _MOST:
        raise VoiceFormatError(f"{texts['source'] or texts['name']}: its default settings are not plain values")
    extra: dict[str, Any] = {}
    left = _MOST
    for key, value in info.extra.items():
        key, value = _text(str(key)), _text(value) if isinstance(value, str) else value
        left -= len(json.dumps({key: value})) if _is_plain(value) else 0
        if _is_plain(value) and left >= 0:
            extra[key] = value
    return dataclasses.replace(info, **texts, extra=extra)


_LONGEST, _MOST, _DEEPEST = 4096, 64 << 10, 8


def _text(text: str) -> str:
    """``text`` without what cannot be printed (controls, half characters); line breaks stay."""
    return "".join(char for char in text if char.isprintable() or char == "\n")


def _is_plain(value: Any, depth: int = 0) -> bool:
    """Whether ``value`` is JSON of printable texts, and of numbers that every reader of JSON knows."""
    if depth > _DEEPEST:
        return False
    if isinstance(value, dict):
        return all(isinstance(key, str) and _is_plain([key, item], depth + 1) for key, item in value.items())
    if isinstance(value, list | tuple):
        return all(_is_plain(item, depth + 1) for item in value)
    if isinstance(value, str):
        return value == _text(value)
    if isinstance(value, float):
        return math.isfinite(value)
    return value is None or (isinstance(value, int) and abs(value) < 1 << 53)


_KINDS: dict[str, type] = {
    **dict.fromkeys(("name", "family", "content_name", "decoder", "version", "licence", "source", "sha256"), str),
    **dict.fromkeys(("sample_rate", "content_dim", "speakers", "size", "index_vectors", "index_bytes"), int),
    **dict.fromkeys(("uses_f0",), bool),
    **dict.fromkeys(("defaults", "extra"), dict),
}
