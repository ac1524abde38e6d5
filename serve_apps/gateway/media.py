"""What kind of audio a take is, said to browsers; nothing that they would show or run as a page."""

from __future__ import annotations

import re

from rocktop_ray.store.keys import content_type
from serve_apps.spool import Spool

OTHER = "application/octet-stream"

_HEADS = (
    (rb"(RIFF|RF64|BW64).{4}WAVE", "audio/wav"),
    (rb"fLaC", "audio/flac"),
    (rb"OggS", "audio/ogg"),
    (rb"\x1a\x45\xdf\xa3", "audio/webm"),
    (rb".{4}ftyp", "audio/mp4"),
    (rb"FORM.{4}AIF[FC]", "audio/aiff"),
    (rb"\xff[\xf0-\xf1\xf8-\xf9]", "audio/aac"),
    (rb"ID3|\xff[\xe2-\xff]", "audio/mpeg"),
)


def take_type(spool: Spool, key: str, name: str) -> str:
    """The media type of a take by its first bytes, else by what its client calls it, if that is audio or video.

    Raises ObjectMissingError, StorageError.
    """
    with spool.store.open_read(key) as stream:
        head = stream.read(12)
    for pattern, kind in _HEADS:
        if re.match(pattern, head, re.DOTALL):
            return kind
    named = content_type(name)
    return named if re.fullmatch(r"(audio|video)/[a-z0-9.+-]+", named) else OTHER
