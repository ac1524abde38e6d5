"""Names of voices: they become folder names, so they must be safe on every file system."""

from __future__ import annotations

import re
import unicodedata

BUNDLE = "bundle"
"""The name of the voice that ships with the project: no voice of the library can have it."""
MAX_LENGTH = 64
NAME_RULE = f"use letters, digits, space, '.', '_' and '-' (at most {MAX_LENGTH}), starting with a letter or digit"
_PORTS = (f"{port}{number}" for port in ("com", "lpt") for number in range(10))
_RESERVED = frozenset((BUNDLE, "con", "prn", "aux", "nul", *_PORTS))


def valid_name(name: str) -> bool:
    """Whether a voice can have this name."""
    return (
        re.fullmatch(r"[^\W_][\w .-]*", name) is not None
        and name == unicodedata.normalize("NFC", name)
        and not name.endswith((".", " "))
        and len(name.encode()) <= 2 * MAX_LENGTH
        and len(name) <= MAX_LENGTH
        and name.split(".")[0].casefold() not in _RESERVED
    )


def clean_name(text: str) -> str:
    """A name that a voice can have, from a file's name: ``"../My Singer!.v2"`` -> ``"My Singer.v2"``."""
    name = re.sub(r"[^\w .-]+", "", unicodedata.normalize("NFC", text))
    name = re.sub(r"^[\W_]+", "", name)[:MAX_LENGTH]
    while len(name.encode()) > 2 * MAX_LENGTH:
        name = name[:-1]
    name = name.rstrip(". ")
    if not valid_name(name):
        name = f"voice {name}".strip()[:MAX_LENGTH].rstrip(". ")
    return name if valid_name(name) else "voice"
