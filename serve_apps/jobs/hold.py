"""One board at a time for a folder: two would do each job twice, and sweep away each other's files."""

from __future__ import annotations

from filelock import BaseFileLock, FileLock, Timeout

from rocktop_ray.errors import StorageUnavailableError, storage_errors
from rocktop_ray.store.local import LocalStorage
from rocktop_ray.store.storage import Storage

_NAME = ".jobs.lock"


def hold(store: Storage) -> BaseFileLock | None:
    """The folder's lock, held until it is released or the process ends; None for S3, which has none.

    Raises StorageUnavailableError if another service holds it, StorageError.
    """
    if not isinstance(store, LocalStorage):
        return None
    with storage_errors(store.root):
        store.root.mkdir(parents=True, exist_ok=True)
        lock = FileLock(store.root / _NAME, timeout=0, thread_local=False)
        try:
            lock.acquire()
        except Timeout:
            raise StorageUnavailableError(
                "another service keeps its jobs in this store: stop it, or give this one a store of its own"
            ) from None
    return lock
