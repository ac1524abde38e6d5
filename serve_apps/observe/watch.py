"""What nobody tells by itself: the state of a cache and of the disks, looked at every quarter of a minute."""

from __future__ import annotations

import logging
import shutil
import threading
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Self

from rocktop_ray.errors import StorageError
from rocktop_ray.store.cache import CacheStats, ContentCache
from serve_apps.observe.recorders import Recorder

SECONDS = 15.0

_COUNTERS = {
    "hits": "rocktop_cache_hits_total",
    "misses": "rocktop_cache_misses_total",
    "changed": "rocktop_cache_changed_total",
    "corrupt": "rocktop_cache_corrupt_total",
    "evictions": "rocktop_cache_evictions_total",
    "fetched_bytes": "rocktop_cache_fetched_bytes_total",
    "served_bytes": "rocktop_cache_served_bytes_total",
}

_log = logging.getLogger(__name__)


class StorageWatch:
    """While the ``with`` block runs, a thread tells the counters of a cache and the free space of folders."""

    def __init__(self, recorder: Recorder, cache: ContentCache | None, places: dict[str, str]) -> None:
        """``places``: what is said as label ``place``, and the folder; addresses of object stores are passed over."""
        self._recorder, self._cache = recorder, cache
        self._places = {name: Path(place) for name, place in places.items() if "://" not in place}
        self._told = CacheStats()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="storage-watch", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join(timeout=5.0)

    def look(self) -> None:
        """Tell once, now. Raises StorageError."""
        if self._cache is not None:
            now = self._cache.stats()
            grown, before = asdict(now), asdict(self._told)
            for counter, name in _COUNTERS.items():
                self._recorder.add(name, grown[counter] - before[counter])
            self._told = now
            self._recorder.set("rocktop_cache_files", now.entries)
            self._recorder.set("rocktop_cache_bytes", now.bytes)
            self._recorder.set("rocktop_cache_limit_bytes", self._cache.max_bytes)
        for name, folder in self._places.items():
            if folder.exists():
                self._recorder.set("rocktop_disk_free_bytes", shutil.disk_usage(folder).free, place=name)

    def _run(self) -> None:
        while True:
            try:
                self.look()
            except (StorageError, OSError) as error:
                _log.warning("storage is not readable", extra={"reason": str(error)})
            if self._stop.wait(SECONDS):
                return
