"""A voice library in an object store, shared by the nodes of a cluster. Used as ``VoiceLibrary`` is.

``manifests/<name>.json`` is ``VoiceInfo`` and the keys of the voice's files, which lie under
``files/<name>/<token>/`` with a token of their own for every import. The manifest is written last, on condition that it
is still the one that was seen: so a reader sees all of a voice or nothing, and imports of one name at the same time do
not mix. Files of a replaced voice are removed after that; those of a killed import, by a later change of the library.
"""

from __future__ import annotations

import contextlib
import secrets
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from rocktop_ray.errors import (
    ObjectChangedError,
    ObjectMissingError,
    RocktopError,
    SettingsError,
    StorageError,
    StorageUnavailableError,
    VoiceFormatError,
    VoiceNotFoundError,
)
from rocktop_ray.store.cache import ContentCache
from rocktop_ray.store.sources import ObjectSource
from rocktop_ray.store.storage import Storage
from rocktop_ray.voices.info import VoiceInfo
from rocktop_ray.voices.manifest import (
    MAX_MANIFEST,
    no_such_voice,
    read_manifest,
    voice_changed,
    voice_damaged,
    write_manifest,
)
from rocktop_ray.voices.names import valid_name
from rocktop_ray.voices.prepare import PreparedVoice, prepare_voice

_MANIFESTS, _FILES, _END = "manifests/", "files/", ".json"
_TRIES = 10
_ABANDONED = 6 * 3600.0
"""Seconds after which files without a manifest cannot belong to an import that still runs."""


@dataclass(frozen=True)
class _Stored:
    """A manifest as it was read. ``info`` is None and ``trouble`` says why if it is damaged."""

    etag: str
    info: VoiceInfo | None
    trouble: str = ""
    voice: str = ""
    """Key of the voice file."""
    index: str = ""

    @property
    def keys(self) -> list[str]:
        return [key for key in (self.voice, self.index) if key]


class SharedLibrary:
    """The voices in a store. Lists are remembered for ``fresh_seconds``, manifests until their ETag changes."""

    def __init__(self, store: Storage, *, fresh_seconds: float = 1.0) -> None:
        self._store, self._fresh = store, fresh_seconds
        self._guard = threading.Lock()
        self._seen: dict[str, _Stored] = {}
        self._list: tuple[float, dict[str, str]] | None = None
        self._changes = 0

    def names(self) -> list[str]:
        """The voices' names, in order. Raises StorageError."""
        return sorted(self._listed())

    def infos(self) -> list[VoiceInfo]:
        """The facts of all voices whose manifests can be read; see ``damaged`` for the others. Raises StorageError."""
        return [stored.info for _, stored in self._all() if stored.info is not None]

    def damaged(self) -> list[str]:
        """Names of voices whose manifests cannot be read. Raises StorageError."""
        return [name for name, stored in self._all() if stored.info is None]

    def info(self, name: str) -> VoiceInfo:
        """The facts of one voice as they are now. Raises VoiceNotFoundError, VoiceFormatError (damaged manifest),
        StorageError."""
        stored = self._find(name)
        if stored is None:
            raise self.not_found(name)
        if stored.info is None:
            raise VoiceFormatError(stored.trouble)
        return stored.info

    def not_found(self, name: str) -> VoiceNotFoundError:
        """The error for a name that is not there, with the names that are."""
        return no_such_voice(name, self._store.url, self.names())

    def import_(
        self,
        source: str | Path,
        *,
        name: str | None = None,
        index: str | Path | None = None,
        licence: str = "",
        replace_existing: bool = False,
    ) -> VoiceInfo:
        """Add a voice, see ``VoiceLibrary.import_``. The first of two at once wins the name; with ``replace_existing``
        the last. Raises the same, StorageUnavailableError too."""
        prepared = prepare_voice(source, name=name, index=index, licence=licence)
        for _ in range(_TRIES):
            old = self._free(prepared.info.name, replace_existing)
            new = self._upload(prepared)
            if self._publish(prepared.info, new, old):
                self._forget(prepared.info.name)
                self._delete(old.keys if old else [])
                self._sweep()
                return prepared.info
            self._delete(new)
        raise StorageUnavailableError(f"others change voice {prepared.info.name!r} all the time; try again")

    def remove(self, name: str) -> None:
        """Delete a voice. Raises VoiceNotFoundError, StorageError."""
        stored = self._find(name)
        if stored is None:
            raise self.not_found(name)
        self._store.delete(_key(name))
        self._forget(name)
        self._delete(stored.keys)
        self._sweep()

    @contextmanager
    def files(self, info: VoiceInfo, cache: ContentCache) -> Iterator[tuple[Path, Path | None]]:
        """Voice and index file of the voice as ``info`` describes it, brought into this node's cache, to be read in the
        block.

        Raises VoiceChangedError if the library has another by now, VoiceFormatError if its files are not those that
        were imported, StorageError.
        """
        stored = self._find(info.name)
        if stored is None or stored.info != info:
            raise voice_changed(info.name)
        with ExitStack() as held:
            found: list[Path | None] = [None, None]
            wanted = ((stored.voice, info.sha256), (stored.index, info.index_sha256))
            for number, (key, sha256) in enumerate(wanted):
                if not key:
                    continue
                try:
                    entry = held.enter_context(cache.get(ObjectSource(self._store, key)))
                except (ObjectMissingError, ObjectChangedError) as error:
                    if self._find(info.name) != stored:
                        raise voice_changed(info.name) from error
                    raise voice_damaged(info.name) from error
                if entry.sha256 != sha256:
                    raise voice_damaged(info.name)
                found[number] = entry.path
            assert found[0] is not None
            yield found[0], found[1]

    def _free(self, name: str, replace_existing: bool) -> _Stored | None:
        """What has the name now, if it may be replaced. Raises SettingsError if not."""
        twins = [other for other in self._listed(fresh=True) if other.casefold() == name.casefold()]
        old = self._find(name)
        other = next((twin for twin in twins if twin != name), name if old else None)
        if other is not None and (other != name or not replace_existing):
            raise SettingsError(f"the library has a voice {other!r} already: choose another name, or replace it")
        return old

    def _upload(self, prepared: PreparedVoice) -> list[str]:
        """The keys of the voice's files in the store: one, or two with its index."""
        folder = f"{_FILES}{prepared.info.name}/{secrets.token_hex(8)}/"
        keys = [folder + "voice.safetensors"]
        self._write(keys[0], prepared.voice)
        if prepared.index is not None:
            keys.append(folder + "voice.index")
            self._write(keys[1], prepared.index)
        return keys

    def _write(self, key: str, data: bytes) -> None:
        with self._store.open_write(key) as stream:
            stream.write(data)

    def _publish(self, info: VoiceInfo, keys: list[str], old: _Stored | None) -> bool:
        """Write the manifest over ``old``; False if somebody was faster."""
        data = write_manifest(info, files=keys)
        try:
            self._store.write(_key(info.name), data, if_absent=old is None, if_match=old.etag if old else "")
            return True
        except (ObjectChangedError, ObjectMissingError):
            # A write that was sent again after a broken answer meets itself.
            with contextlib.suppress(ObjectMissingError):
                return self._store.read(_key(info.name)) == data
            return False

    def _delete(self, keys: list[str]) -> None:
        """Remove files that no manifest names; what stays because the store is ill is swept later."""
        with contextlib.suppress(StorageError):
            for key in keys:
                self._store.delete(key)

    def _sweep(self) -> None:
        """Remove what killed imports left, if the store lets us."""
        with contextlib.suppress(RocktopError):
            before = time.time() - _ABANDONED
            old = [found.key for found in self._store.list(_FILES) if found.modified < before]
            if old:  # listed first, then compared: a manifest that came meanwhile names young files only
                self._listed(fresh=True)
                used = {key for _, stored in self._all() for key in stored.keys}
                self._delete([key for key in old if key not in used])

    def _find(self, name: str) -> _Stored | None:
        """The manifest as it is in the store now; None if there is none."""
        if not valid_name(name):
            return None
        try:
            return self._read(name, self._store.stat(_key(name)).etag)
        except ObjectMissingError:
            self._forget(name)
            return None

    def _read(self, name: str, etag: str) -> _Stored:
        """The manifest of this ETag. Raises ObjectMissingError, StorageError."""
        with self._guard:
            seen = self._seen.get(name)
        if seen is not None and seen.etag == etag:
            return seen
        stored = _parse(self._store.read(_key(name), limit=MAX_MANIFEST), name, etag)
        with self._guard:
            self._seen[name] = stored
        return stored

    def _all(self) -> list[tuple[str, _Stored]]:
        listed = sorted(self._listed().items())

        def read(item: tuple[str, str]) -> tuple[str, _Stored] | None:
            with contextlib.suppress(ObjectMissingError):  # removed since it was listed
                return item[0], self._read(*item)
            return None

        with self._guard:
            fresh = all(name in self._seen and self._seen[name].etag == etag for name, etag in listed)
        if fresh:
            return [found for found in map(read, listed) if found]
        with ThreadPoolExecutor(8, thread_name_prefix="manifests") as threads:
            return [found for found in threads.map(read, listed) if found]

    def _listed(self, *, fresh: bool = False) -> dict[str, str]:
        """Names and the ETags of their manifests."""
        with self._guard:
            if self._list is not None and not fresh and time.monotonic() - self._list[0] < self._fresh:
                return self._list[1]
            changes = self._changes
        began = time.monotonic()
        found = {stat.key[len(_MANIFESTS) : -len(_END)]: stat.etag for stat in self._store.list(_MANIFESTS)}
        found = {name: etag for name, etag in found.items() if valid_name(name)}
        with self._guard:
            if changes == self._changes:  # else this list may lack what this process did meanwhile
                self._list = began, found
            self._seen = {name: stored for name, stored in self._seen.items() if name in found}
        return found

    def _forget(self, name: str) -> None:
        with self._guard:
            self._list = None
            self._changes += 1
            self._seen.pop(name, None)


def _key(name: str) -> str:
    return f"{_MANIFESTS}{name}{_END}"


def _parse(data: bytes, name: str, etag: str) -> _Stored:
    try:
        info, whole = read_manifest(data, name)
        keys = whole.get("files")
        if not isinstance(keys, list) or len(keys) != (2 if info.index_sha256 else 1):
            raise voice_damaged(name)
        if not all(isinstance(key, str) and key.startswith(f"{_FILES}{name}/") for key in keys):
            raise voice_damaged(name)
    except VoiceFormatError as error:
        return _Stored(etag, None, error.message)
    return _Stored(etag, info, "", keys[0], keys[1] if len(keys) > 1 else "")
