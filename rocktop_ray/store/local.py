"""A store in a folder of this machine (or of a shared file system)."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, cast

from filelock import FileLock, Timeout

from rocktop_ray.errors import (
    ObjectChangedError,
    ObjectMissingError,
    SettingsError,
    StorageError,
    StorageTimeoutError,
    storage_errors,
)
from rocktop_ray.store.atomic import atomic_path
from rocktop_ray.store.keys import check_key, check_prefix
from rocktop_ray.store.storage import Stat, join_url

if TYPE_CHECKING:
    from pyarrow.fs import FileSystem

_ABSENT = (errno.ENOENT, errno.ENOTDIR, errno.EISDIR)


class LocalStorage:
    """Objects are files below ``root``. See ``storage.Storage``.

    Names that start with a dot belong to the store (temporary files, the lock of conditional writes). A link that
    leads out of the folder is refused. The ETag is made of the file's number, size and time of change.
    """

    def __init__(self, root: Path, public_url: str = "") -> None:
        self.root = root
        self._public_url = public_url

    def __repr__(self) -> str:
        return f"LocalStorage({str(self.root)!r})"

    @property
    def url(self) -> str:
        """``file:///folder``."""
        return self.root.as_uri()

    def open_read(self, key: str) -> BinaryIO:
        """See ``Storage``."""
        with _errors(key):
            return self._file(key).open("rb")

    @contextmanager
    def open_write(self, key: str, *, content_type: str | None = None) -> Iterator[BinaryIO]:
        """See ``Storage``; a file keeps no content type."""
        with self._new(key) as part, part.open("xb") as stream:
            yield stream

    def read(self, key: str, *, limit: int | None = None) -> bytes:
        """See ``Storage``."""
        with self.open_read(key) as stream, _errors(key):
            data = stream.read() if limit is None else stream.read(limit + 1)
        if limit is not None and len(data) > limit:
            raise StorageError(f"{key} has more than {limit} bytes")
        return data

    def write(
        self, key: str, data: bytes, *, content_type: str | None = None, if_absent: bool = False, if_match: str = ""
    ) -> Stat:
        """See ``Storage``. Conditional writes exclude each other, not plain ones."""
        if not (if_absent or if_match):
            with self._new(key) as part:
                part.write_bytes(data)
            return self.stat(key)
        check_key(key)
        with self._conditional():
            found = self.stat(key).etag if self.exists(key) else ""
            if found != if_match:
                what = "exists already" if if_absent else "is not the object of that ETag"
                raise ObjectChangedError(f"{key} {what}")
            return self.write(key, data)

    def put_file(self, key: str, path: Path, *, content_type: str | None = None) -> Stat:
        """See ``Storage``."""
        with self._new(key) as part:
            shutil.copyfile(path, part)
        return self.stat(key)

    def get_file(self, key: str, path: Path) -> Stat:
        """See ``Storage``."""
        with self.open_read(key) as stream, atomic_path(path) as part:
            with part.open("xb") as target:
                shutil.copyfileobj(stream, target, 1 << 20)
            return _stat(key, os.fstat(stream.fileno()))

    def list(self, prefix: str = "") -> Iterator[Stat]:
        """See ``Storage``."""
        check_prefix(prefix)
        with _errors(prefix or self.url):
            yield from sorted(self._walk(prefix), key=lambda found: found.key.encode())

    def stat(self, key: str) -> Stat:
        """See ``Storage``."""
        with _errors(key):
            return _stat(key, self._file(key).stat())

    def exists(self, key: str) -> bool:
        """See ``Storage``."""
        try:
            self.stat(key)
        except ObjectMissingError:
            return False
        return True

    def delete(self, key: str) -> None:
        """See ``Storage``. Folders that become empty stay."""
        try:
            with _errors(key):
                self._file(key).unlink()
        except ObjectMissingError:
            return

    def copy(self, source: str, target: str) -> Stat:
        """See ``Storage``."""
        check_key(target)
        with _errors(source):
            path = self._file(source)
        return self.put_file(target, path)

    def presigned_get(self, key: str, seconds: int) -> str:
        """Raises SettingsError: files have no signed links."""
        raise SettingsError("a file store signs no links; use S3, or set a public address", stage="store")

    def public_url(self, key: str) -> str | None:
        """See ``Storage``."""
        check_key(key)
        return join_url(self._public_url, key) if self._public_url else None

    def arrow(self) -> FileSystem:
        """See ``Storage``. Raises StorageError if the folder cannot be made."""
        try:
            from pyarrow import fs
        except ImportError as error:
            raise SettingsError("bulk access needs pyarrow: pip install 'rocktop-ray[s3]'", stage="store") from error
        with storage_errors(self.root):
            self.root.mkdir(parents=True, exist_ok=True)
        return fs.SubTreeFileSystem(str(self.root), fs.LocalFileSystem())

    def _place(self, key: str) -> Path:
        path = self.root / check_key(key)
        if not self._inside(path):
            raise StorageError(f"{key} leads out of the store")
        return path

    def _inside(self, path: Path) -> bool:
        return path.resolve().is_relative_to(self.root.resolve())

    def _file(self, key: str) -> Path:
        """The object's file. Raises FileNotFoundError (also for a folder: S3 has none)."""
        path = self._place(key)
        if not path.is_file():
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path))
        return path

    @contextmanager
    def _new(self, key: str) -> Iterator[Path]:
        path = self._place(key)
        if path.is_dir():
            raise StorageError(f"{key} is a folder with objects in it; choose another name")
        with atomic_path(path) as part:
            yield part

    @contextmanager
    def _conditional(self) -> Iterator[None]:
        with storage_errors(self.root):
            self.root.mkdir(parents=True, exist_ok=True)
        try:
            with FileLock(self.root / ".conditional.lock", timeout=30):
                yield
        except Timeout as error:
            raise StorageTimeoutError(f"another process keeps {self.root} locked; try again") from error

    def _walk(self, prefix: str) -> Iterator[Stat]:
        start = self.root / prefix.rpartition("/")[0]
        for folder, names, files in os.walk(start, onerror=_walk_error):
            names[:] = [name for name in names if not name.startswith(".")]
            for name in files:
                path = Path(folder, name)
                key = path.relative_to(self.root).as_posix()
                if name.startswith(".") or not key.startswith(prefix) or not self._inside(path):
                    continue
                try:
                    yield _stat(key, path.stat())
                except FileNotFoundError:  # removed while we walk
                    continue


def _stat(key: str, found: os.stat_result) -> Stat:
    etag = f"{found.st_ino:x}-{found.st_size:x}-{found.st_mtime_ns:x}"
    return Stat(key, found.st_size, found.st_mtime, etag)


def _walk_error(error: OSError) -> None:
    if error.errno not in _ABSENT:
        raise error


@contextmanager
def _errors(key: str) -> Iterator[None]:
    try:
        with storage_errors(key):
            yield
    except StorageError as error:
        cause = cast("OSError | None", error.__cause__)
        if cause is not None and cause.errno in _ABSENT:
            raise ObjectMissingError(f"no object {key} in the store") from None
        raise
