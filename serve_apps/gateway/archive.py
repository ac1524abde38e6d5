"""Results of a batch in one zip file, made while it is sent: nothing is kept, nothing is compressed twice."""

from __future__ import annotations

import io
import re
import time
import zipfile
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from rocktop_ray.errors import ObjectMissingError
from serve_apps.spool import Spool

_RESERVED = re.compile(r"(?i)(con|prn|aux|nul|com\d|lpt\d)(\..*)?")
_LONGEST = 120


@dataclass(frozen=True)
class Member:
    """One file of the archive."""

    key: str
    name: str
    modified: float
    """Seconds since 1970 UTC."""


def zipped(spool: Spool, members: Sequence[Member]) -> Generator[bytes, None, None]:
    """The archive, stored (PKWARE APPNOTE 6.3), in blocks. Blocks the thread while it reads.

    Members that were removed meanwhile are left out. Raises StorageError.
    """
    sink = _Sink()
    with zipfile.ZipFile(sink, "w", zipfile.ZIP_STORED) as archive:
        for member in members:
            try:
                size = spool.store.stat(member.key).bytes
            except ObjectMissingError:
                continue
            entry = zipfile.ZipInfo(member.name, time.gmtime(max(member.modified, 315532800))[:6])
            entry.external_attr = 0o644 << 16
            entry.file_size = size  # decides whether the member needs the fields for more than 4 GiB
            with archive.open(entry, "w") as target:
                for block in spool.chunks(member.key, 0, size):
                    target.write(block)
                    yield sink.take()
            yield sink.take()
    yield sink.take()


def safe_names(names: Sequence[str], suffixes: Sequence[str]) -> list[str]:
    """The names, their endings replaced, made fit for every file system; no two alike in any case."""
    used: set[str] = set()
    made = []
    for name, ending in zip(names, suffixes, strict=True):
        base = safe_stem(name)
        number, candidate = 1, base + ending
        while candidate.lower() in used:
            number += 1
            candidate = f"{base} ({number}){ending}"
        used.add(candidate.lower())
        made.append(candidate)
    return made


def safe_stem(name: str) -> str:
    """A take's name without its ending and without what some system refuses in file names."""
    last = re.split(r"[/\\]", name)[-1]
    stem = PurePosixPath(last).stem if not last.startswith(".") else last
    stem = "".join("_" if mark in '<>:"|?*' or not mark.isprintable() else mark for mark in stem)
    stem = stem.encode()[:_LONGEST].decode(errors="ignore").strip(" .")
    return f"_{stem}" if _RESERVED.fullmatch(stem) else stem or "take"


class _Sink(io.RawIOBase):
    """Keeps what is written until it is taken; cannot seek, so that the archive is written straight on."""

    def __init__(self) -> None:
        super().__init__()
        self._blocks: list[bytes] = []

    def writable(self) -> bool:
        """Yes."""
        return True

    def write(self, data: bytes) -> int:  # type: ignore[override]
        """Keep ``data``."""
        self._blocks.append(bytes(data))
        return len(data)

    def take(self) -> bytes:
        """What was written since the last time."""
        blocks, self._blocks = self._blocks, []
        return b"".join(blocks)
