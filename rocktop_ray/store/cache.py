"""Downloads kept by content: shared by threads and processes, checked for change, bounded.

Folder: ``blobs/ab/<sha256>`` holds content, ``refs/ab/<hash of a source's key>`` what a source brought and how to ask
whether it changed, ``locks/`` one lock per source at work, ``parts/`` downloads at work, ``crowded`` tells
everybody that there is too much because it is in use. Everything may be deleted while no process uses it. Needs a file
system with flock (local disks, NFS of today).
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import secrets
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Literal

from filelock import FileLock, Timeout

from rocktop_ray.errors import SettingsError, StorageTimeoutError, storage_errors
from rocktop_ray.store import lease
from rocktop_ray.store.digest import file_sha256
from rocktop_ray.store.guarded_fetch import Fetched, Validators
from rocktop_ray.store.lease import Lease
from rocktop_ray.store.sniff import HEAD
from rocktop_ray.store.sources import Source

_REFS_PER_FOLDER = 256
_STALE_SECONDS = 60.0


@dataclass(frozen=True)
class Entry:
    """A cached file, safe from removal while the ``with`` block that gave it runs. Only to be read."""

    path: Path
    sha256: str
    bytes: int
    found: Literal["hit", "miss"]
    """hit: nothing was downloaded (at most the server was asked)."""


@dataclass(frozen=True)
class CacheStats:
    """Counters of this process since the cache was opened, and what the folder holds now."""

    hits: int = 0
    misses: int = 0
    changed: int = 0
    """Misses where the source had another version than the one kept."""
    corrupt: int = 0
    """Kept files that were damaged, and fetched again."""
    evictions: int = 0
    evicted_bytes: int = 0
    fetched_bytes: int = 0
    served_bytes: int = 0
    """Of hits."""
    entries: int = 0
    bytes: int = 0

    @property
    def hit_rate(self) -> float:
        """Hits of all requests, 0..1; 0 before the first."""
        return self.hits / max(1, self.hits + self.misses)


@dataclass(frozen=True)
class _Ref:
    """What a source brought last."""

    sha256: str
    bytes: int
    identity: str
    asked: float
    """When the request began that showed this version (s since 1970)."""
    etag: str = ""
    last_modified: str = ""
    length: int | None = None


class ContentCache:
    """A folder of at most ``max_bytes`` of content. Safe to use from threads and processes at once.

    Every ``get`` asks the source whether the kept version is still right, with the caller's own credentials: a cache
    must not hand out what its caller may not read. Callers that ask for the very same at the same time share one
    download. Entries in use are never removed, so the folder may exceed its bound while they are.
    """

    def __init__(self, root: Path, max_bytes: int, *, wait_seconds: float = 900.0) -> None:
        """wait_seconds: longest wait for another process's download of the same. Raises SettingsError, StorageError."""
        if max_bytes <= 0:
            raise SettingsError("a cache needs room: max_bytes above 0", stage="store")
        self.root, self.max_bytes, self._wait = root, max_bytes, wait_seconds
        self._guard = threading.Lock()
        self._stats = CacheStats()
        self._verified: dict[str, tuple[int, int, int]] = {}
        self._crowded = root / "crowded"
        with storage_errors(root):
            for name in ("blobs", "refs", "locks", "parts"):
                (root / name).mkdir(parents=True, exist_ok=True)

    @contextmanager
    def get(self, source: Source) -> Iterator[Entry]:
        """The content of ``source``, in a file that stays while the block runs.

        Raises FetchError and StorageError of the source; StorageTimeoutError if another process takes too long with the
        same source.
        """
        arrived = time.time()
        name = _hash(source.key)
        busy = "another process takes too long with the same download; try again"
        with storage_errors(self.root), self._lock(name[:4], busy):
            held, entry = self._obtain(source, name, arrived)
        with self._lent(held):
            source.accept(_head(entry.path), entry.bytes)
            yield entry

    @contextmanager
    def kept(self, sha256: str) -> Iterator[Entry | None]:
        """The content of this digest if it is here, whatever brought it; else None.

        No source is asked: only for callers to whom ``get`` has shown this content before. Raises StorageError.
        """
        with storage_errors(self.root):
            held = self._take(sha256, None) if re.fullmatch("[0-9a-f]{64}", sha256) else None
            entry = None if held is None else self._served(sha256, held)
        if held is None:
            yield None
            return
        with self._lent(held):
            yield entry

    @contextmanager
    def _lent(self, held: Lease) -> Iterator[None]:
        try:
            yield
        finally:
            held.release()
            if self._crowded.exists():
                with storage_errors(self.root), self._shrinking(0):
                    pass

    def stats(self) -> CacheStats:
        """Counters, and a count of the folder."""
        with storage_errors(self.root):
            sizes = [found.st_size for _, found in self._blobs()]
        with self._guard:
            return replace(self._stats, entries=len(sizes), bytes=sum(sizes))

    def _obtain(self, source: Source, name: str, arrived: float) -> tuple[Lease, Entry]:
        """The lock of the source is held."""
        asked = time.time()
        identity = _hash(source.identity)
        ref = self._read_ref(name)
        held = self._take(ref.sha256, ref.bytes) if ref else None
        try:
            if ref and held:
                if ref.identity == identity and arrived <= ref.asked <= asked:
                    return held, self._served(ref.sha256, held)
                known = Validators(ref.etag, ref.last_modified, ref.length)
            else:
                known = None
            new, fetched = self._download(source, known)
            if ref and held and not fetched.changed:
                self._write_ref(name, replace(ref, identity=identity, asked=asked))
                return held, self._served(ref.sha256, held)
        except BaseException:
            if held:
                held.release()
            raise
        if held:
            held.release()
        assert new is not None
        shown = asdict(fetched.validators)
        self._write_ref(name, _Ref(fetched.sha256, fetched.bytes, identity, asked, **shown))
        self._count(
            misses=1, changed=int(bool(held and ref and ref.sha256 != fetched.sha256)), fetched_bytes=fetched.bytes
        )
        return new, Entry(new.path, fetched.sha256, fetched.bytes, "miss")

    def _served(self, sha256: str, held: Lease) -> Entry:
        with contextlib.suppress(PermissionError):  # another user's file: its access time is as the system keeps it
            os.utime(held.path, ns=(time.time_ns(), held.stat.st_mtime_ns))  # the access time says what was used last
        self._count(hits=1, served_bytes=held.stat.st_size)
        return Entry(held.path, sha256, held.stat.st_size, "hit")

    def _download(self, source: Source, known: Validators | None) -> tuple[Lease | None, Fetched]:
        part = self.root / "parts" / secrets.token_hex(12)
        handle = lease.create(part)
        try:
            with os.fdopen(handle, "wb", closefd=False) as sink:
                fetched = source.fetch(sink, known, self.max_bytes)
            return (self._publish(handle, part, fetched) if fetched.changed else None), fetched
        finally:
            part.unlink(missing_ok=True)
            os.close(handle)

    def _publish(self, handle: int, part: Path, fetched: Fetched) -> Lease:
        os.fsync(handle)
        path = self._blob(fetched.sha256)
        path.parent.mkdir(exist_ok=True)
        with self._shrinking(fetched.bytes):
            # another source may have brought the same content
            held = self._take(fetched.sha256, fetched.bytes) or lease.publish(handle, part, path)
        self._trust(fetched.sha256, held)
        return held

    def _take(self, sha256: str, size: int | None) -> Lease | None:
        """A lease on kept content (of ``size`` bytes); None if it is not there, or damaged (it is removed then)."""
        held = lease.take(self._blob(sha256))
        if held is None:
            return None
        mark = (held.stat.st_ino, held.stat.st_mtime_ns, held.stat.st_size)
        fits = size in (None, held.stat.st_size)
        with self._guard:
            if fits and self._verified.get(sha256) == mark:
                return held
        if fits and file_sha256(held.path) == sha256:
            self._trust(sha256, held)
            return held
        held.path.unlink(missing_ok=True)
        held.release()
        self._count(corrupt=1)
        return None

    def _trust(self, sha256: str, held: Lease) -> None:
        found = held.path.stat()
        with self._guard:
            if len(self._verified) > 4 * _REFS_PER_FOLDER:
                self._verified.clear()
            self._verified[sha256] = (found.st_ino, found.st_mtime_ns, found.st_size)

    @contextmanager
    def _shrinking(self, need: int) -> Iterator[None]:
        """Make room for ``need`` bytes, and keep it: the longest unused go first, those in use stay."""
        with self._lock("shrink", "another process keeps the cache locked; try again"):
            self._sweep_parts()
            blobs = sorted(self._blobs(), key=lambda blob: blob[1].st_atime_ns)
            total = need + sum(found.st_size for _, found in blobs)
            if total > self.max_bytes:
                self._crowded.touch()  # before looking who uses what: whoever lets go later sees it and shrinks again
            for path, found in blobs:
                if total <= self.max_bytes:
                    break
                if lease.remove_unused(path):
                    total -= found.st_size
                    self._count(evictions=1, evicted_bytes=found.st_size)
            if total <= self.max_bytes:
                self._crowded.unlink(missing_ok=True)
            yield

    def _sweep_parts(self) -> None:
        """Remove what killed downloads left."""
        for part in (self.root / "parts").iterdir():
            with contextlib.suppress(FileNotFoundError):
                if time.time() - part.stat().st_mtime > _STALE_SECONDS:
                    lease.remove_unused(part)

    def _blobs(self) -> Iterator[tuple[Path, os.stat_result]]:
        for path in (self.root / "blobs").glob("??/*"):
            with contextlib.suppress(FileNotFoundError):
                yield path, path.stat()

    def _blob(self, sha256: str) -> Path:
        return self.root / "blobs" / sha256[:2] / sha256

    def _read_ref(self, name: str) -> _Ref | None:
        """What is known of a source; None if nothing, or if it cannot be read: the source is asked afresh then."""
        try:
            ref = _Ref(**json.loads((self.root / "refs" / name[:2] / name).read_bytes()))
        except (FileNotFoundError, ValueError, TypeError):
            return None
        good = re.fullmatch("[0-9a-f]{64}", str(ref.sha256)) and isinstance(ref.bytes, int)
        return ref if good and isinstance(ref.asked, float) else None

    def _write_ref(self, name: str, ref: _Ref) -> None:
        path = self.root / "refs" / name[:2] / name
        path.parent.mkdir(exist_ok=True)
        part = path.with_name(f".{secrets.token_hex(8)}")
        part.write_text(json.dumps(asdict(ref)))  # not synced to the disk: a lost one costs a download
        part.replace(path)
        others = [other for other in path.parent.iterdir() if not other.name.startswith(".")]
        if len(others) > _REFS_PER_FOLDER:
            oldest = min((other for other in others if other != path), key=_modified)
            oldest.unlink(missing_ok=True)

    @contextmanager
    def _lock(self, name: str, trouble: str) -> Iterator[None]:
        lock = FileLock(self.root / "locks" / name, timeout=self._wait)
        try:
            lock.acquire()
        except Timeout as error:
            raise StorageTimeoutError(trouble) from error
        try:
            yield
        finally:
            lock.release()

    def _count(self, **more: int) -> None:
        with self._guard:
            self._stats = replace(self._stats, **{name: getattr(self._stats, name) + n for name, n in more.items()})


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def _head(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(HEAD)


def _modified(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except FileNotFoundError:
        return 0.0
