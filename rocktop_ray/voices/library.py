"""The voice library: a folder with one folder per voice, safe between processes.

``<name>/`` holds ``voice.safetensors``, ``voice.index`` if there is one, and ``manifest.json`` (``VoiceInfo``). A voice
is put together in a hidden folder beside the others and renamed into place under a lock, so that readers see all of it
or nothing. What a killed process leaves is removed, or put back, by the next one that changes the library.
"""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from rocktop_ray import paths
from rocktop_ray.errors import (
    RocktopError,
    SettingsError,
    StorageError,
    VoiceNotFoundError,
    storage_error,
)
from rocktop_ray.store.digest import file_sha256
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

_STAGING, _OLD, _TRASH = ".staging-", ".old-", ".trash-"
_VOICE, _INDEX, _MANIFEST = "voice.safetensors", "voice.index", "manifest.json"
_LOCK_SECONDS = 60


class VoiceLibrary:
    """The voices in a folder; None is the user's own (``rocktop_ray.paths.voices``)."""

    def __init__(self, root: str | Path | None = None) -> None:
        self.root = paths.voices() if root is None else Path(root).expanduser()

    def names(self) -> list[str]:
        """The voices' names, in order."""
        try:
            found = [entry.name for entry in self.root.iterdir() if not entry.name.startswith(".") and entry.is_dir()]
        except FileNotFoundError:
            return []
        except OSError as error:
            raise storage_error(error, f"the voice library {self.root}", "read") from error
        return sorted(name for name in found if (self.root / name / _MANIFEST).is_file())

    def has(self, name: str) -> bool:
        """Whether there is a voice of that name."""
        return valid_name(name) and (self.root / name / _MANIFEST).is_file()

    def infos(self) -> list[VoiceInfo]:
        """The facts of all voices whose manifests can be read; see ``damaged`` for the others."""
        return [info for info in (self._readable(name) for name in self.names()) if info is not None]

    def damaged(self) -> list[str]:
        """Names of voices whose manifests cannot be read."""
        return [name for name in self.names() if self._readable(name) is None]

    def info(self, name: str) -> VoiceInfo:
        """The facts of one voice. Raises VoiceNotFoundError, VoiceFormatError (damaged manifest), StorageError."""
        if not self.has(name):
            raise self.not_found(name)
        path = self.root / name / _MANIFEST
        try:
            with path.open("rb") as file:
                data = file.read(MAX_MANIFEST + 1)
        except FileNotFoundError:  # removed just now
            raise self.not_found(name) from None
        except OSError as error:
            raise storage_error(error, path, "read") from error
        return read_manifest(data, name)[0]

    def voice_path(self, name: str) -> Path:
        """The voice file. Raises VoiceNotFoundError."""
        if not self.has(name):
            raise self.not_found(name)
        return self.root / name / _VOICE

    def index_path(self, name: str) -> Path | None:
        """The index file, None if the voice has none. Raises VoiceNotFoundError."""
        path = self.voice_path(name).with_name(_INDEX)
        return path if path.is_file() else None

    @contextmanager
    def files(self, info: VoiceInfo) -> Iterator[tuple[Path, Path | None]]:
        """Voice and index file of the voice as ``info`` describes it, their hashes checked, to be read in the block.

        Raises VoiceChangedError if the voice is replaced or removed before the block ends, VoiceFormatError if its
        files are not those that were imported, StorageError.
        """
        folder = self.root / info.name
        voice, index = folder / _VOICE, folder / _INDEX if info.index_sha256 else None
        before = _mark(folder / _MANIFEST)
        try:
            if before is None or self.info(info.name) != info:
                raise voice_changed(info.name)
            if not _holds(voice, info.sha256) or (index is not None and not _holds(index, info.index_sha256)):
                raise voice_damaged(info.name)
            yield voice, index
        except RocktopError as error:
            if _mark(folder / _MANIFEST) != before or isinstance(error, VoiceNotFoundError):
                raise voice_changed(info.name) from error
            raise
        if _mark(folder / _MANIFEST) != before:
            raise voice_changed(info.name)

    def not_found(self, name: str) -> VoiceNotFoundError:
        """The error for a name that is not there, with the names that are."""
        return no_such_voice(name, self.root, self.names())

    def import_(
        self,
        source: str | Path,
        *,
        name: str | None = None,
        index: str | Path | None = None,
        licence: str = "",
        replace_existing: bool = False,
    ) -> VoiceInfo:
        """Add a voice from a ``.pth``, a ``.safetensors``, a zip or a folder with one, and its index.

        Everything is read and checked before the library is touched. Raises VoiceFormatError, UnsafeFileError,
        IndexFormatError, VoiceNotFoundError, SettingsError (a name that is taken or cannot be used), StorageError.
        """
        return self._store(prepare_voice(source, name=name, index=index, licence=licence), replace_existing)

    def remove(self, name: str) -> None:
        """Delete a voice. Raises VoiceNotFoundError, StorageError."""
        with self._locked():
            if not valid_name(name) or not (self.root / name).is_dir():
                raise self.not_found(name)
            trash = self.root / f"{_TRASH}{secrets.token_hex(6)}"
            (self.root / name).rename(trash)
            _delete(trash)

    def _store(self, prepared: PreparedVoice, replace_existing: bool) -> VoiceInfo:
        info = prepared.info
        with self._locked():
            target = self.root / info.name
            self._check_free(info.name, replace_existing)
            staging = self.root / f"{_STAGING}{secrets.token_hex(6)}"
            try:
                staging.mkdir()
                _write(staging / _VOICE, prepared.voice)
                if prepared.index is not None:
                    _write(staging / _INDEX, prepared.index)
                _write(staging / _MANIFEST, write_manifest(info))
                if target.exists():  # the old one goes aside under a name from which it can be put back
                    aside = self.root / f"{_OLD}{info.name}"
                    target.rename(aside)
                    staging.rename(target)
                    _delete(aside)
                else:
                    staging.rename(target)
            finally:
                shutil.rmtree(staging, ignore_errors=True)
        return info

    def _check_free(self, name: str, replace_existing: bool) -> None:
        taken = {entry.name.casefold(): entry.name for entry in self.root.iterdir() if not entry.name.startswith(".")}
        other = taken.get(name.casefold())
        if other is not None and (other != name or not replace_existing):
            raise SettingsError(f"the library has a voice {other!r} already: choose another name, or replace it")

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Alone in the library, with the leftovers of killed processes gone."""
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            with FileLock(self.root / ".lock", timeout=_LOCK_SECONDS):
                self._clean()
                yield
        except Timeout as error:
            message = f"another process holds the voice library {self.root} for more than {_LOCK_SECONDS} s"
            raise StorageError(message, retryable=True) from error
        except OSError as error:
            raise storage_error(error, f"the voice library {self.root}", "change") from error

    def _clean(self) -> None:
        for entry in [*self.root.iterdir()]:
            original = self.root / entry.name.removeprefix(_OLD)
            if entry.name.startswith(_OLD) and not original.exists():
                entry.rename(original)
            elif entry.name.startswith((_STAGING, _OLD, _TRASH)):
                _delete(entry)

    def _readable(self, name: str) -> VoiceInfo | None:
        try:
            return self.info(name)
        except RocktopError:
            return None


def _mark(path: Path) -> tuple[int, int, int] | None:
    """What tells this file from another of the same name; None if there is none."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns, found.st_size


def _holds(path: Path, sha256: str) -> bool:
    try:
        return file_sha256(path) == sha256
    except FileNotFoundError:
        return False
    except OSError as error:
        raise storage_error(error, path, "read") from error


def _delete(entry: Path) -> None:
    """A folder with all in it; of a link only the link."""
    if entry.is_symlink():
        entry.unlink()
    else:
        shutil.rmtree(entry)


def _write(path: Path, data: bytes) -> None:
    """Write and wait until the disk has it."""
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
