"""Writing WAV: float32 or 16/24-bit integers, RF64 past 4 GiB (Microsoft RIFF; EBU Tech 3306).

Written here and not by libsndfile, because that puts the time of day into float files, and because whether a file is
RF64 is known only at its end: a JUNK chunk keeps the place of the 64-bit sizes. A receiver that cannot seek gets the
sizes at once if they are known, else 0xFFFFFFFF, which readers take for "until the end".
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import IO, Protocol

import numpy as np

from rocktop_ray.audio.dither import Quantiser
from rocktop_ray.audio.formats import Output
from rocktop_ray.protocols import Array

_PCM, _FLOAT, _EXTENSIBLE = 1, 3, 0xFFFE
_GUID_TAIL = bytes.fromhex("000000001000800000aa00389b71")
_LIMIT = 0xFFFF_FFFF
_INFO_NAMES = {"title": b"INAM", "artist": b"IART", "comment": b"ICMT", "copyright": b"ICOP", "software": b"ISFT"}


class Sink(Protocol):
    """Where bytes go."""

    def write(self, data: bytes, /) -> int:
        """Takes all of it."""
        ...

    def seekable(self) -> bool:
        """Whether there is a ``seek``."""
        ...


class WavFile:
    """A WAV file that grows. ``frames`` per channel, if known, is for a ``file`` that cannot seek."""

    def __init__(
        self, file: Sink | IO[bytes], output: Output, tags: Mapping[str, str], seed: int, *, frames: int | None = None
    ) -> None:
        self._file = file
        self._bits = output.format.bits
        self._width = (self._bits or 32) // 8 * output.channels
        self._quantise = Quantiser(self._bits, seed) if self._bits else None
        self._data_bytes = 0
        info = _info_chunk(tags)
        self._head = _format_chunk(output, self._width) + info
        if file.seekable():
            self._file.write(self._header(0))
        else:
            self._file.write(self._header(None if frames is None else frames * self._width))

    def write(self, block: Array) -> None:
        """Appends ``[n, channels]``."""
        if self._quantise is None:
            data = block.astype("<f4").tobytes()
        elif self._bits == 16:
            data = self._quantise(block).astype("<i2").tobytes()
        else:
            # The low three of the four bytes of each sample.
            data = self._quantise(block).astype("<i4").reshape(-1, 1).view(np.uint8)[:, :3].tobytes()
        self._file.write(data)
        self._data_bytes += len(data)

    def close(self) -> None:
        """Writes the final sizes."""
        if self._data_bytes & 1:
            self._file.write(b"\0")
        if self._file.seekable():
            self._file.seek(0)  # type: ignore[union-attr]
            self._file.write(self._header(self._data_bytes))

    def abort(self) -> None:
        """Nothing to free."""

    def _header(self, data_bytes: int | None) -> bytes:
        """All before the samples; None says that the size is not known."""
        frames = _LIMIT if data_bytes is None else data_bytes // self._width
        fact = b"" if self._bits else struct.pack("<4sII", b"fact", 4, min(frames, _LIMIT))
        start = struct.pack("<4sI4s4sI28x", b"RIFF", _LIMIT, b"WAVE", b"JUNK", 28)
        size = _LIMIT
        if data_bytes is not None:
            body = 4 + 36 + len(self._head) + len(fact) + 8 + data_bytes + (data_bytes & 1)
            if body <= _LIMIT:
                start, size = struct.pack("<4sI4s4sI28x", b"RIFF", body, b"WAVE", b"JUNK", 28), data_bytes
            else:
                sizes = struct.pack("<QQQI", body, data_bytes, frames, 0)
                start = struct.pack("<4sI4s4sI", b"RF64", _LIMIT, b"WAVE", b"ds64", 28) + sizes
        return start + self._head + fact + struct.pack("<4sI", b"data", size)


def _format_chunk(output: Output, width: int) -> bytes:
    bits = output.format.bits or 32
    kind = _PCM if output.format.bits else _FLOAT
    common = (output.channels, output.rate, output.rate * width, width, bits)
    if output.channels <= 2:
        extra = b"" if kind == _PCM else b"\0\0"
        return struct.pack("<4sIHHIIHH", b"fmt ", 16 + len(extra), kind, *common) + extra
    # More than two channels: the extensible form, no speaker positions claimed.
    return struct.pack("<4sIHHIIHHHHIH", b"fmt ", 40, _EXTENSIBLE, *common, 22, bits, 0, kind) + _GUID_TAIL


def _info_chunk(tags: Mapping[str, str]) -> bytes:
    fields = b""
    for key, text in tags.items():
        data = text.encode() + b"\0"
        fields += struct.pack("<4sI", _INFO_NAMES[key], len(data)) + data + b"\0" * (len(data) & 1)
    return struct.pack("<4sI4s", b"LIST", 4 + len(fields), b"INFO") + fields if fields else b""
