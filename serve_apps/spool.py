"""Where takes wait and results lie: a store, seen as files. Shared by all replicas of a deployment."""

from __future__ import annotations

import tempfile
import time
import uuid
from collections.abc import Generator, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from rocktop_ray.errors import ObjectChangedError, storage_errors
from rocktop_ray.store.atomic import PART, atomic_path
from rocktop_ray.store.keys import check_key
from rocktop_ray.store.local import LocalStorage
from rocktop_ray.store.settings import StorageSettings
from rocktop_ray.store.storage import Storage, open_storage

TAKES, RESULTS = "takes", "results"


class Spool:
    """Takes and results by key. On a folder no byte is copied; on S3 files pass through the temporary folder."""

    def __init__(self, store: Storage) -> None:
        self.store = store

    @classmethod
    def open(cls, place: str) -> Spool:
        """The spool in a folder or at ``s3://``; credentials come from the environment. Raises StorageError."""
        return cls(open_storage(place, StorageSettings.from_environment()))

    @staticmethod
    def new_key(folder: str, suffix: str = "") -> str:
        """A key that nobody can guess, e.g. ``takes/4f...e1.wav``."""
        return f"{folder}/{uuid.uuid4().hex}{suffix}"

    @contextmanager
    def reading(self, key: str) -> Iterator[Path]:
        """The object as a file. Raises ObjectMissingError, StorageError."""
        if isinstance(self.store, LocalStorage):
            self.store.stat(key)
            yield self.store.root / key
            return
        with self._temporary(key) as path:
            self.store.get_file(key, path)
            yield path

    @contextmanager
    def writing(self, key: str, *, content_type: str | None = None) -> Iterator[Path]:
        """A file to write; it becomes the object when the block ends without an error, else it is gone."""
        if isinstance(self.store, LocalStorage):
            check_key(key)
            with atomic_path(self.store.root / key) as path:
                yield path
            return
        with self._temporary(key) as path:
            yield path
            self.store.put_file(key, path, content_type=content_type)

    def put(self, key: str, data: bytes) -> None:
        """Write a small object whole. Raises StorageError."""
        self.store.write(key, data)

    def remove(self, *keys: str) -> None:
        """Remove objects; those that are not there are fine. Raises StorageError."""
        for key in keys:
            self.store.delete(key)

    def chunks(self, key: str, start: int, stop: int, size: int = 256 << 10) -> Generator[bytes, None, None]:
        """Bytes ``start`` to ``stop`` of an object, ``size`` at a time, read as they are asked for.

        Raises ObjectMissingError; ObjectChangedError if it is shorter than ``stop``; StorageError.
        """
        with self.store.open_read(key) as stream, storage_errors(key, "read"):
            if start:
                stream.seek(start)
            while start < stop:
                data = stream.read(min(size, stop - start))
                if not data:
                    raise ObjectChangedError(f"{key} has become shorter while it was read")
                start += len(data)
                yield data

    def sweep_parts(self, seconds: float) -> int:
        """Remove unfinished files of takes and results, older than that, which killed processes left; how many."""
        if not isinstance(self.store, LocalStorage):
            return 0  # S3 shows no unfinished objects
        swept = 0
        for folder in (TAKES, RESULTS):
            for path in (self.store.root / folder).glob(f".*{PART}"):
                with storage_errors(path, "remove"), suppress(FileNotFoundError):
                    if path.stat().st_mtime < time.time() - seconds:
                        path.unlink()
                        swept += 1
        return swept

    @contextmanager
    def _temporary(self, key: str) -> Iterator[Path]:
        with storage_errors("the temporary folder"):
            folder = tempfile.TemporaryDirectory(prefix="rocktop-")
        with folder as name:
            yield Path(name) / Path(key).name
