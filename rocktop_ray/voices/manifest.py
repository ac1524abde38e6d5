"""The manifest of a voice in a library: ``VoiceInfo`` as JSON, with what the library adds."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from rocktop_ray.errors import VoiceChangedError, VoiceFormatError, VoiceNotFoundError
from rocktop_ray.voices.info import VoiceInfo, plain_info

MANIFEST_VERSION = 1
MAX_MANIFEST = 1 << 20
"""Bytes of the largest one that is read."""


def write_manifest(info: VoiceInfo, **more: Any) -> bytes:
    """The manifest's bytes; ``more`` is what the library itself keeps there."""
    return json.dumps({"manifest": MANIFEST_VERSION, **info.as_dict(), **more}, indent=1).encode()


def read_manifest(data: bytes, name: str) -> tuple[VoiceInfo, dict[str, Any]]:
    """The facts of the voice ``name``, and everything that its manifest holds. Raises VoiceFormatError."""
    try:
        if len(data) > MAX_MANIFEST:
            raise ValueError("too large")
        found = json.loads(data, parse_constant=_refuse)
        if found.get("manifest") != MANIFEST_VERSION:
            raise ValueError(f"manifest version {found.get('manifest')!r}")
        return plain_info(replace(VoiceInfo.from_dict(found), name=name)), found
    except (ValueError, AttributeError, RecursionError, VoiceFormatError) as error:
        raise VoiceFormatError(
            f"the manifest of voice {name!r} is damaged ({error}): remove and import it again"
        ) from error


def _refuse(constant: str) -> float:
    raise ValueError(f"{constant} is no number")


def voice_changed(name: str) -> VoiceChangedError:
    """The error to raise when a voice is not the one that was chosen any more."""
    return VoiceChangedError(f"voice {name[:80]!r} was replaced or removed meanwhile; try again")


def voice_damaged(name: str) -> VoiceFormatError:
    """The error to raise when a voice's files are not those that its manifest tells of."""
    return VoiceFormatError(f"the files of voice {name!r} are damaged: remove and import it again")


def no_such_voice(name: str, library: str | Path, names: list[str]) -> VoiceNotFoundError:
    """The error to raise for a name that a library does not have, with the names that it has."""
    have = f"it has {', '.join(names[:10])}{', ...' if len(names) > 10 else ''}" if names else "it is empty"
    return VoiceNotFoundError(f"no voice {name[:80]!r} in the library {library}: {have}")
