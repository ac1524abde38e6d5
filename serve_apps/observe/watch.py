"""What nobody tells by itself: voices held, the state of a cache, the space on disks. Looked at now and then."""

from __future__ import annotations

import logging
import shutil
import threading
import weakref
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self

from rocktop_ray.errors import StorageError
from rocktop_ray.store.cache import ContentCache
from serve_apps.observe.recorders import Recorder

SECONDS = 10.0

_DOWNLOADS = {
    "hits": "rocktop_cache_hits_total",
    "misses": "rocktop_cache_misses_total",
    "changed": "rocktop_cache_changed_total",
    "corrupt": "rocktop_cache_corrupt_total",
    "evictions": "rocktop_cache_evictions_total",
    "fetched_bytes": "rocktop_cache_fetched_bytes_total",
    "served_bytes": "rocktop_cache_served_bytes_total",
}
_VOICES = {"misses": "rocktop_voice_loads_total", "evictions": "rocktop_voice_evictions_total"}

_log = logging.getLogger(__name__)


class CountsVoices(Protocol):
    """``actors.voice_cache.VoiceCache``."""

    def stats(self) -> Any:
        """Has ``misses``, ``evictions`` since the start, and ``loaded`` now."""
        ...


class Watch:
    """Tells the counters of caches and the free space of folders, from a thread between ``start`` and ``stop``.

    The thread holds no reference to the caches: it ends by itself with the last of those who use them.
    """

    def __init__(
        self,
        recorder: Recorder,
        *,
        cache: ContentCache | None = None,
        voices: CountsVoices | None = None,
        places: Mapping[str, str] | None = None,
    ) -> None:
        """``places``: what is said as label ``place``, and the folder; addresses of object stores are passed over."""
        self._recorder = recorder
        self._cache = weakref.ref(cache) if cache is not None else None
        self._voices = weakref.ref(voices) if voices is not None else None
        self._places = {name: Path(place) for name, place in (places or {}).items() if "://" not in place}
        self._told: dict[str, int] = {}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="watch", daemon=True)

    def start(self) -> Self:
        """Begin to look, every ten seconds."""
        self._thread.start()
        return self

    def stop(self) -> None:
        """End; what happened since the last look is told first."""
        self._stop.set()
        self._thread.join(timeout=5.0)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def look(self) -> bool:
        """Tell once, now; False if there is nothing left to look at. Raises StorageError, OSError."""
        cache, voices, places = self._look_at_cache(), self._look_at_voices(), self._look_at_places()
        return cache or voices or places

    def _look_at_cache(self) -> bool:
        cache = self._cache() if self._cache else None
        if cache is None:
            return False
        stats = cache.stats()
        self._grown(stats, _DOWNLOADS)
        self._recorder.set("rocktop_cache_files", stats.entries)
        self._recorder.set("rocktop_cache_bytes", stats.bytes)
        self._recorder.set("rocktop_cache_limit_bytes", cache.max_bytes)
        return True

    def _look_at_voices(self) -> bool:
        voices = self._voices() if self._voices else None
        if voices is None:
            return False
        stats = voices.stats()
        self._grown(stats, _VOICES)
        self._recorder.set("rocktop_voices_loaded", stats.loaded)
        return True

    def _look_at_places(self) -> bool:
        for name, folder in self._places.items():
            if folder.exists():
                self._recorder.set("rocktop_disk_free_bytes", shutil.disk_usage(folder).free, place=name)
        return bool(self._places)

    def _grown(self, stats: Any, names: Mapping[str, str]) -> None:
        """Counters of others count from their own start; ours grow by the difference."""
        for field, name in names.items():
            now = getattr(stats, field)
            self._recorder.add(name, now - self._told.get(name, 0))
            self._told[name] = now

    def _run(self) -> None:
        while self._looked():
            if self._stop.wait(SECONDS):
                self._looked()
                return

    def _looked(self) -> bool:
        try:
            return self.look()
        except (StorageError, OSError) as error:
            _log.warning("storage is not readable", extra={"reason": str(error)})
            return True
