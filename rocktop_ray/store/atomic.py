"""Write files so that a reader, or a machine that stops half way, never sees a part of one."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from rocktop_ray.errors import storage_errors

PART = ".part"
"""Ending of names that are not yet whole: leftovers of a killed process carry it."""


@contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """A temporary path beside ``path``, renamed to it if the block ends well and removed if not.

    The file's bytes are on the disk before it takes its name. Raises StorageError if the disk refuses.
    """
    path = Path(path)
    part = path.with_name(f".{path.name[:100]}-{secrets.token_hex(6)}{PART}")
    try:
        with storage_errors(path, "write"):
            path.parent.mkdir(parents=True, exist_ok=True)
            yield part
            with part.open("rb") as written:
                os.fsync(written.fileno())
            part.replace(path)
    finally:
        with suppress(OSError):  # a file stands where the folder should be
            part.unlink(missing_ok=True)


def write_bytes(path: str | Path, data: bytes | memoryview) -> None:
    """Write ``data`` to ``path`` atomically. Raises StorageError."""
    with atomic_path(path) as part:
        part.write_bytes(data)
