"""Names of objects in a store. One rule for files and for S3, so that what works on one works on the other."""

from __future__ import annotations

import mimetypes
import unicodedata

from rocktop_ray.errors import SettingsError

MAX_KEY_BYTES = 900
"""S3 allows 1024 bytes for a key; the rest is room for the prefix of a store."""
MAX_PART_BYTES = 200
"""File systems allow 255 bytes for a name; the rest is room for temporary names."""
CONTENT_TYPES = {
    ".ogg": "audio/ogg",
    ".opus": "audio/ogg",
    ".flac": "audio/flac",
    ".wav": "audio/wav",
    ".mp3": "audio/mpeg",
    ".m4a": "audio/mp4",
    ".json": "application/json",
}
"""Media types that a system's own table does not always know."""


def check_key(key: str) -> str:
    """``key`` if it is good: ``part/part/name``, 1..900 bytes, each part 1..200 bytes, no ``.`` at the start of a part.

    Refused are absolute names, ``.`` and ``..``, empty parts, backslashes, control and unassigned characters, blanks at
    the ends of a part. Raises SettingsError, which shows the name escaped.
    """
    problem = _problem(key)
    if problem:
        raise SettingsError(f"not a name for an object: {key[:80]!a} ({problem})", stage="store")
    return key


def check_prefix(prefix: str) -> str:
    """A prefix for ``list``: empty, or the start of a good key (so ``takes/``, ``takes/a`` and ``takes``)."""
    if prefix:
        check_key(prefix.removesuffix("/"))
    return prefix


def content_type(key: str) -> str:
    """Media type by the ending of a name; ``application/octet-stream`` if unknown."""
    ending = "." + key.rsplit(".", 1)[-1].lower()
    return CONTENT_TYPES.get(ending) or mimetypes.guess_type(key)[0] or "application/octet-stream"


def _problem(key: str) -> str:
    try:
        size = len(key.encode())
    except UnicodeEncodeError:
        return "it holds half characters"
    if not 1 <= size <= MAX_KEY_BYTES:
        return f"it must have 1 to {MAX_KEY_BYTES} bytes"
    if "\\" in key:
        return "no backslash"
    if any(unicodedata.category(character) in ("Cc", "Cf", "Cn", "Co", "Zl", "Zp") for character in key):
        return "no control characters"
    for part in key.split("/"):
        if not part:
            return "no empty part, and no / at the ends"
        if part.startswith("."):
            return "no part starts with a dot"
        if part != part.strip():
            return "no blank at the ends of a part"
        if len(part.encode()) > MAX_PART_BYTES:
            return f"a part has at most {MAX_PART_BYTES} bytes"
    return ""
