"""Opens what a caller hands in (a path, bytes, a file object) as one seekable binary file of known size."""

from __future__ import annotations

import io
import os
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, BinaryIO

from rocktop_ray.audio.info import AudioLimits
from rocktop_ray.errors import AudioError, StorageError, storage_error

AudioSource = str | os.PathLike[str] | bytes | BinaryIO
"""A path, the bytes of a file, or a binary file object (read from its beginning, left open)."""

_SPOOL = 16 * 1024**2


@dataclass(frozen=True)
class Source:
    """An open recording."""

    file: IO[bytes]
    name: str
    """How messages call it."""
    size: int
    """Bytes."""
    on_disk: bool
    """True if ``file`` is an unbuffered file of the system, so that its descriptor can be handed to C code."""


class DecoderFile:
    """A file object for decoders, which seek before the start of broken files and to where no file reaches; the answer
    is -1, no exception."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.name = getattr(file, "name", "<none>")

    def read(self, count: int) -> bytes:
        """The next bytes."""
        return self._file.read(count)

    def tell(self) -> int:
        """Where the next bytes are."""
        return self._file.tell()

    def seek(self, offset: int, whence: int = 0) -> int:
        """The new position; -1 if there is no such."""
        try:
            return self._file.seek(offset, whence)
        except (ValueError, OverflowError, OSError):
            return -1


def _open_path(path: Path) -> IO[bytes]:
    try:
        mode = path.stat().st_mode
        if stat.S_ISDIR(mode):
            raise AudioError(f"{path} is a folder; name one audio file", stage="input")
        # A pipe or device may block or never end.
        if not stat.S_ISREG(mode):
            raise AudioError(f"{path} is not an ordinary file", stage="input")
        return path.open("rb", buffering=0)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise AudioError(f"there is no file {path}", stage="input") from error
    except OSError as error:
        raise storage_error(error, path, "open", stage="input") from error
    except ValueError as error:  # a zero byte in the name
        raise StorageError(f"cannot open {path}: {error}", stage="input") from error


def _spool(stream: BinaryIO, name: str, limits: AudioLimits) -> IO[bytes]:
    """Copies a stream that cannot seek to memory, past 16 MiB to disk."""
    spooled = tempfile.SpooledTemporaryFile(max_size=_SPOOL)  # noqa: SIM115 - closed by open_source
    copied = 0
    while chunk := stream.read(1024**2):
        copied += len(chunk)
        limits.check_bytes(name, copied)
        spooled.write(chunk)
    return spooled


@contextmanager
def open_source(source: AudioSource, limits: AudioLimits) -> Iterator[Source]:
    """Opens a recording for reading and closes what it opened.

    Raises AudioError (missing, a folder, a device, empty), StorageError (no permission, disk trouble), AudioLimitError.
    """
    given: IO[bytes] | None = None
    on_disk = False
    if isinstance(source, bytes | bytearray | memoryview):
        file: IO[bytes] = io.BytesIO(source)
        name = "the recording"
    elif isinstance(source, str | os.PathLike):
        name = str(source)
        file, on_disk = _open_path(Path(source)), True
    else:
        label = getattr(source, "name", None)
        name = label if isinstance(label, str) and label else "the recording"
        file = given = source
        if not source.seekable():
            file = _spool(source, name, limits)
    try:
        size = file.seek(0, io.SEEK_END)
        file.seek(0)
        if size == 0:
            raise AudioError(f"{name} is empty (0 bytes)", stage="input")
        limits.check_bytes(name, size)
        yield Source(file, name, size, on_disk)
    finally:
        if file is not given:
            file.close()
