"""The voices that a deployment serves: its library, the bundle, and foreign ones behind addresses."""

from __future__ import annotations

import functools
import hashlib
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from rocktop_ray.errors import SettingsError, VoiceNotFoundError
from rocktop_ray.features.index import RetrievalIndex
from rocktop_ray.store.cache import ContentCache, Entry
from rocktop_ray.store.digest import file_sha256
from rocktop_ray.store.guarded_fetch import FetchPolicy
from rocktop_ray.store.local import LocalStorage
from rocktop_ray.store.settings import StorageSettings
from rocktop_ray.store.sniff import Kind
from rocktop_ray.store.sources import UrlSource
from rocktop_ray.store.storage import open_storage
from rocktop_ray.voices.info import VoiceInfo
from rocktop_ray.voices.library import VoiceLibrary
from rocktop_ray.voices.manifest import voice_changed
from rocktop_ray.voices.names import BUNDLE, clean_name
from rocktop_ray.voices.open import Voice, bundle_folder, open_files, voice_info
from rocktop_ray.voices.prepare import found_voice
from rocktop_ray.voices.shared import SharedLibrary
from serve_apps.config import ServeConfig
from serve_apps.labels import clean_label, hiding, labelled, url_label
from serve_apps.orders import VoiceRef

_SILENCE = 10.0
"""Seconds of silence of the store, at most, for each of two tries."""

Library = VoiceLibrary | SharedLibrary
Found = Literal["hit", "miss"]
OnStep = Callable[[str], None]
"""Told what begins: ``download_model``, ``download_index``."""


@dataclass(frozen=True)
class VoiceFetch:
    """What bringing a foreign voice took. The index has None, 0.0 and 0 where there is none."""

    model_seconds: float
    model_found: Found
    """hit: nothing was downloaded, at most the server was asked."""
    model_bytes: int
    index_seconds: float = 0.0
    index_found: Found | None = None
    index_bytes: int = 0

    @property
    def bytes(self) -> int:
        """Of voice and index together."""
        return self.model_bytes + self.index_bytes


class VoiceShelf:
    """Safe to use from threads; every replica has its own. What it raises names no place of the server.

    Methods that read the library raise StorageError (``retryable`` where a store is down).
    """

    def __init__(self, library: Library, place: str) -> None:
        """place: folder or address of the library, not to be shown."""
        self._library = library
        self._places = {place: "the library"}
        self._bundle_guard = threading.Lock()

    @classmethod
    def open(cls, config: ServeConfig) -> VoiceShelf:
        """The shelf of a deployment; nothing is contacted yet. Raises SettingsError, StorageError."""
        place = config.voices.library
        if place is None:
            own = VoiceLibrary()
            return cls(own, str(own.root))
        settings = StorageSettings.from_environment()
        patience = min(settings.read_seconds, _SILENCE)  # requests wait for manifests
        store = open_storage(place, replace(settings, read_seconds=patience, attempts=min(settings.attempts, 2)))
        if isinstance(store, LocalStorage):
            return cls(VoiceLibrary(store.root), str(store.root))
        return cls(SharedLibrary(store), store.url)

    def names(self) -> list[str]:
        """The bundle, then the library's voices in order."""
        with self._hiding():
            return [BUNDLE, *self._library.names()]

    def infos(self) -> list[VoiceInfo]:
        """The facts of all voices that can be read; see ``damaged``."""
        with self._hiding():
            return [self._bundle(), *self._library.infos()]

    def damaged(self) -> list[str]:
        """Names of voices whose manifests cannot be read."""
        with self._hiding():
            return self._library.damaged()

    def info(self, name: str) -> VoiceInfo:
        """The facts of one voice as they are now. Raises VoiceNotFoundError, VoiceFormatError (damaged)."""
        with self._hiding():
            return self._bundle() if name == BUNDLE else self._library.info(name)

    def import_(
        self,
        source: Path,
        *,
        name: str | None = None,
        index: Path | None = None,
        licence: str = "",
        replace_existing: bool = False,
        label: str = "",
    ) -> VoiceInfo:
        """Check a voice file or zip, and add it to the library. ``label`` is the file's name as the client knows it.

        Raises VoiceFormatError, UnsafeFileError, IndexFormatError, SettingsError (a name that is taken or cannot be
        used).
        """
        label = clean_label(label or source.name, "voice")
        files = [(source, label), *([(index, f"{Path(label).stem}.index")] if index is not None else [])]
        with self._hiding(), labelled(*files) as links:
            return self._library.import_(
                links[0],
                name=name,
                index=links[1] if index is not None else None,
                licence=licence,
                replace_existing=replace_existing,
            )

    def remove(self, name: str) -> None:
        """Delete a voice of the library. Raises VoiceNotFoundError, SettingsError for the bundle."""
        if name == BUNDLE:
            raise SettingsError("the bundle is part of the installation and cannot be removed", stage="voice")
        with self._hiding():
            self._library.remove(name)

    def refer(self, name: str) -> VoiceRef:
        """The voice of this name as it is now. Raises VoiceNotFoundError, VoiceFormatError."""
        return _ref(self.info(name))

    def refer_url(
        self,
        cache: ContentCache,
        model_url: str,
        index_url: str | None,
        policy: FetchPolicy,
        *,
        on_step: OnStep | None = None,
    ) -> tuple[VoiceRef, VoiceFetch]:
        """Bring a foreign voice (a file, or a zip with its index) and its index into the cache.

        The id depends on their content alone. That they are a voice is found out by ``open_voice``. Raises FetchError,
        StorageError.
        """
        with self._hiding(cache):
            model, model_seconds = _bring(cache, model_url, policy, "voice", on_step, "download_model")
            fetch = VoiceFetch(model_seconds, model.found, model.bytes)
            index_sha256 = ""
            if index_url:
                index, seconds = _bring(cache, index_url, policy, "index", on_step, "download_index")
                fetch = replace(fetch, index_seconds=seconds, index_found=index.found, index_bytes=index.bytes)
                index_sha256 = index.sha256
        name = clean_name(Path(url_label(model_url, "voice")).stem)
        digest = _digest(model.sha256, index_sha256)
        return VoiceRef(f"url:{digest}", name, model_url, index_url or "", model.sha256, index_sha256), fetch

    def open_voice(self, ref: VoiceRef, device: str, cache: ContentCache, policy: FetchPolicy) -> Voice:
        """Load a voice, on any replica. Foreign files are brought again only where this node has not kept them.

        Raises VoiceChangedError if it is not what ``refer`` or ``refer_url`` saw, VoiceNotFoundError, VoiceFormatError,
        UnsafeFileError, IndexFormatError, FetchError, StorageError.
        """
        with self._hiding(cache):
            if ref.url:
                return _open_foreign(ref, device, cache, policy)
            info = self.info(ref.name)
            if _ref(info).id != ref.id:
                raise voice_changed(ref.name)
            if ref.name == BUNDLE:
                return open_files(*_bundle_files(), info=info, device=device)
            with self._files(info, cache) as (voice, index):
                return open_files(voice, index, info=info, device=device)

    def _bundle(self) -> VoiceInfo:
        """Raises VoiceNotFoundError if the installation has none."""
        voice, index = _bundle_files()
        if not voice.is_file():
            raise VoiceNotFoundError("this installation has no bundled voice")
        with self._bundle_guard:
            return _bundle_info(voice, index, *(path.stat().st_mtime_ns if path else 0 for path in (voice, index)))

    def _files(self, info: VoiceInfo, cache: ContentCache) -> AbstractContextManager[tuple[Path, Path | None]]:
        if isinstance(self._library, SharedLibrary):
            return self._library.files(info, cache)
        return self._library.files(info)

    def _hiding(self, cache: ContentCache | None = None) -> AbstractContextManager[None]:
        folders = {str(cache.root): "the cache"} if cache is not None else {}
        return hiding({**self._places, **folders, str(bundle_folder()): "the installation"})


def _open_foreign(ref: VoiceRef, device: str, cache: ContentCache, policy: FetchPolicy) -> Voice:
    with ExitStack() as held:
        model = held.enter_context(_content(cache, ref.sha256, ref.url, policy, "voice", ref.name))
        files = [(model.path, url_label(ref.url, "voice"))]
        if ref.index_url:
            entry = held.enter_context(_content(cache, ref.index_sha256, ref.index_url, policy, "index", ref.name))
            files.append((entry.path, url_label(ref.index_url, "voice.index")))
        links = held.enter_context(labelled(*files))
        found = held.enter_context(found_voice(links[0]))
        opened = open_files(found.voice, links[1] if ref.index_url else found.index, device=device)
        info = replace(opened.info, name=ref.name, source=links[0].name, sha256=ref.sha256, size=model.bytes)
        return replace(opened, name=ref.name, info=info)


def _bring(
    cache: ContentCache, url: str, policy: FetchPolicy, kind: Kind, on_step: OnStep | None, step: str
) -> tuple[Entry, float]:
    if on_step is not None:
        on_step(step)
    began = time.monotonic()
    with cache.get(UrlSource(url, policy, expect=kind)) as entry:
        return entry, time.monotonic() - began


@contextmanager
def _content(cache: ContentCache, sha256: str, url: str, policy: FetchPolicy, kind: Kind, name: str) -> Iterator[Entry]:
    """The file that ``refer_url`` saw: kept on this node (a signed link may have run out since), else fetched again."""
    with ExitStack() as held:
        entry = held.enter_context(cache.kept(sha256))
        if entry is None:
            entry = held.enter_context(cache.get(UrlSource(url, policy, expect=kind)))
            if entry.sha256 != sha256:
                raise voice_changed(name)
        yield entry


def _ref(info: VoiceInfo) -> VoiceRef:
    return VoiceRef(f"{info.name}@{_digest(info.sha256, info.index_sha256)}", info.name)


def _digest(sha256: str, index_sha256: str) -> str:
    """128 bits: strangers must not be able to make two voices of one id."""
    return hashlib.sha256(f"{sha256}:{index_sha256}".encode()).hexdigest()[:32]


def _bundle_files() -> tuple[Path, Path | None]:
    voice = bundle_folder() / "bundle.safetensors"
    index = voice.with_suffix(".index")
    return voice, index if index.is_file() else None


@functools.lru_cache(maxsize=2)
def _bundle_info(voice: Path, index: Path | None, *_changed: int) -> VoiceInfo:
    info = replace(voice_info(BUNDLE), name=BUNDLE, sha256=file_sha256(voice), size=voice.stat().st_size)
    if index is None:
        return info
    count = RetrievalIndex.read(index).count
    return replace(info, index_vectors=count, index_bytes=index.stat().st_size, index_sha256=file_sha256(index))
