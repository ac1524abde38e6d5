"""Hold a file against removal, over processes, for as long as it is used. A process that dies lets go."""

from __future__ import annotations

import contextlib
import fcntl
import os
from pathlib import Path


class Lease:
    """A shared lock on an open file; the path keeps this very file while the lease lives."""

    def __init__(self, handle: int, path: Path) -> None:
        self._handle = handle
        self.path = path
        self.stat = os.fstat(handle)

    def release(self) -> None:
        """Let go. More than once is fine."""
        handle, self._handle = self._handle, -1
        if handle >= 0:
            os.close(handle)


def take(path: Path) -> Lease | None:
    """A lease on the file at ``path``, None if there is none. Raises OSError."""
    while True:
        try:
            handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return None
        try:
            fcntl.flock(handle, fcntl.LOCK_SH)
            if _is_at(handle, path):  # else removed, or replaced, between opening and locking
                return Lease(handle, path)
        except BaseException:
            os.close(handle)
            raise
        os.close(handle)


def create(path: Path) -> int:
    """A new file, held exclusively: the mark of a download that lives. Returns the handle. Raises OSError."""
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
    fcntl.flock(handle, fcntl.LOCK_EX)
    return handle


def publish(handle: int, part: Path, path: Path) -> Lease:
    """Rename a file made by ``create``; it is leased before anybody can see it. ``handle`` is still to be closed.

    Raises OSError.
    """
    os.fchmod(handle, 0o444)
    fcntl.flock(handle, fcntl.LOCK_SH)
    part.replace(path)
    return Lease(os.dup(handle), path)


def remove_unused(path: Path) -> bool:
    """Remove a file unless somebody holds it; True if it is gone. Raises OSError."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return True
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if _is_at(handle, path):
            path.unlink()
        return True
    except BlockingIOError:
        return False
    finally:
        os.close(handle)


def _is_at(handle: int, path: Path) -> bool:
    with contextlib.suppress(FileNotFoundError):
        return os.path.samestat(os.fstat(handle), path.stat())
    return False
