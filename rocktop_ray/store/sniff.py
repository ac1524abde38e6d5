"""What kind of file some bytes begin, by their content: headers and names of foreign servers prove nothing."""

from __future__ import annotations

import re
from typing import Literal, get_args

from rocktop_ray.errors import SettingsError, UrlContentError

Kind = Literal["audio", "voice", "index"]

HEAD = 512
"""Bytes that are enough to tell."""

_NAMES = {"audio": "an audio file", "voice": "a voice (.pth or .safetensors)", "index": "a retrieval index"}
_AUDIO = (
    *(rb"(?:RIFF|RF64|BW64).{4}WAVE", rb"riff\x2e\x91\xcf\x11", rb"FORM.{4}AIF[FC]", rb"fLaC", rb"OggS", rb"ID3"),
    *(rb"\xff[\xe2-\xff]", rb".{4}ftyp", rb"\x1a\x45\xdf\xa3", rb"caff", rb"\.snd", rb"wvpk", rb"MAC ", rb"TTA1"),
    *(rb"\x30\x26\xb2\x75\x8e\x66\xcf\x11", rb"#!AMR", rb"DSD ", rb"FRM8", rb"\x00{8,}\xff[\xe2-\xff]"),
)
_VOICE = (rb"PK\x03\x04", rb"\x80[\x02-\x05]", rb".{3}[\x00-\x07]\x00{4}\{")
_INDEX = (rb"I[xwHBvDS][A-Za-z0-9]{2}",)
_PATTERNS = {"audio": _AUDIO, "voice": _VOICE, "index": _INDEX}


def recognise(head: bytes) -> Kind | None:
    """The kind of the file that begins with ``head`` (``HEAD`` bytes of it, or all), None if it is none of them."""
    for kind in get_args(Kind):
        if any(re.match(pattern, head, re.DOTALL) for pattern in _PATTERNS[kind]):
            return kind
    return None


def require(kind: Kind, head: bytes, place: str) -> None:
    """Raise UrlContentError, which says what was found instead, unless ``head`` begins a file of ``kind``.

    This is a first look that refuses web pages and error texts early; the readers of each format check the rest.
    """
    if kind not in _NAMES:
        raise SettingsError(f"unknown kind of file {kind!r}", stage="store")
    if any(re.match(pattern, head, re.DOTALL) for pattern in _PATTERNS[kind]):
        return
    other = recognise(head)
    start = head[:HEAD].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if not head:
        found = "an empty file"
    elif other is not None:
        found = _NAMES[other]
    elif start.startswith((b"<!doctype", b"<html", b"<head", b"<?xml", b"<error")):
        found = "a web page or an error page"
    else:
        found = "something else"
    raise UrlContentError(f"{place}: expected {_NAMES[kind]}, found {found}")
