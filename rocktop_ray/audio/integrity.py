"""Does a file hold all the audio that its header promises? Decoders shorten a cut file silently; these checks do not.

Formats: RIFF/RF64 (Microsoft, EBU Tech 3306), AIFF (Apple), Ogg pages (RFC 3533), the Xing/Info frame of MP3.
"""

from __future__ import annotations

import io
import struct
from dataclasses import dataclass
from typing import IO

_UNKNOWN = 0x7FFF_0000  # a writer that could not seek back leaves 0 or a size near 2 or 4 GiB
_MPEG1_RATES = (44_100, 48_000, 32_000)


@dataclass(frozen=True)
class Promise:
    """Bytes of audio that a header announces, and those that follow it."""

    promised: int
    held: int

    @property
    def broken(self) -> bool:
        """True if bytes are missing."""
        return self.held < self.promised


def riff_promise(file: IO[bytes], size: int) -> Promise | None:
    """The audio bytes of a WAV, RF64 or AIFF file; None for other files and for headers that leave the size open."""
    head = _at(file, 0, 12)
    kind, form = head[:4], head[8:12]
    if (kind in (b"RIFF", b"RF64") and form == b"WAVE") or (kind == b"FORM" and form in (b"AIFF", b"AIFC")):
        order, data = (">I", b"SSND") if kind == b"FORM" else ("<I", b"data")
    else:
        return None
    position, long_size = 12, None
    for _ in range(1000):  # a file with more chunks before its audio is left to the decoder
        chunk = _at(file, position, 8)
        if len(chunk) < 8:
            return None
        name, length = chunk[:4], struct.unpack(order, chunk[4:])[0]
        if name == b"ds64":
            sizes = _at(file, position + 8, 16)
            long_size = struct.unpack("<Q", sizes[8:])[0] if len(sizes) == 16 else None
        if name == data:
            if kind == b"RF64" and long_size is not None:
                length = long_size
            elif length == 0 or length >= _UNKNOWN:
                return None
            return Promise(length, min(length, size - position - 8))
        position += 8 + length + (length & 1)
    return None


def ogg_is_cut(file: IO[bytes], size: int) -> bool:
    """True if an Ogg file ends inside a page."""
    if _at(file, 0, 4) != b"OggS":
        return False
    start = max(0, size - 65_307 - 27)  # the largest page
    tail = _at(file, start, size - start)
    page = tail.rfind(b"OggS")
    if page < 0:
        return False
    header = tail[page : page + 27]
    if len(header) < 27:
        return True
    lacing = tail[page + 27 : page + 27 + header[26]]
    return len(lacing) < header[26] or page + 27 + header[26] + sum(lacing) > len(tail)


def mp3_seconds(file: IO[bytes]) -> float | None:
    """Seconds that the Xing/Info frame of an MP3 file promises, encoder delay included; None without one."""
    head = _at(file, 0, 10)
    start = 0
    if head[:3] == b"ID3" and len(head) == 10:
        size = 0
        for byte in head[6:]:
            size = size << 7 | byte & 0x7F
        start = 10 + size
    frame = _at(file, start, 256)
    # A sync word, then layer III.
    if len(frame) < 64 or frame[0] != 0xFF or frame[1] & 0xE6 != 0xE2:
        return None
    version, rate_index = frame[1] >> 3 & 3, frame[2] >> 2 & 3
    if rate_index == 3 or version == 1:
        return None
    tag = max(frame.find(b"Xing"), frame.find(b"Info"))
    if tag < 0 or len(frame) < tag + 12 or not frame[tag + 7] & 1:
        return None
    rate = _MPEG1_RATES[rate_index] // {3: 1, 2: 2, 0: 4}[version]  # MPEG 1, 2, 2.5
    frames = struct.unpack(">I", frame[tag + 8 : tag + 12])[0]
    return float(frames * (1152 if version == 3 else 576) / rate)


def _at(file: IO[bytes], position: int, count: int) -> bytes:
    """Up to ``count`` bytes from ``position``."""
    file.seek(position)
    taken = io.BytesIO()
    while count > 0 and (chunk := file.read(count)):
        taken.write(chunk)
        count -= len(chunk)
    return taken.getvalue()
