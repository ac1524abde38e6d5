"""The voice library: a folder with one folder per voice, safe between processes.

``<name>/`` holds ``voice.safetensors``, ``voice.index`` if there is one, and ``manifest.json`` (``VoiceInfo``). A voice
is put together in a hidden folder beside the others and renamed into place under a lock, so that readers see all of it
or nothing. What a killed process leaves is removed, or put back, by the next one that changes the library.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from filelock import FileLock, Timeout

from rocktop_ray import paths
from rocktop_ray.errors import (
    RocktopError,
    SettingsError,
    StorageError,
    VoiceFormatError,
    VoiceNotFoundError,
    storage_error,
    storage_errors,
)
from rocktop_ray.features.index import RetrievalIndex
from rocktop_ray.store.digest import file_sha256
from rocktop_ray.voices.archive import FoundVoice, find_in_folder, is_archive, unpack_archive
from rocktop_ray.voices.families import LoadedVoice, load_voice_file
from rocktop_ray.voices.info import VoiceInfo
from rocktop_ray.voices.names import NAME_RULE, clean_name, valid_name
from rocktop_ray.voices.rvc_format import safetensors_form

MANIFEST_VERSION = 1
_STAGING, _OLD, _TRASH = ".staging-", ".old-", ".trash-"
_VOICE, _INDEX, _MANIFEST = "voice.safetensors", "voice.index", "manifest.json"
_LOCK_SECONDS = 60
_MAX_MANIFEST = 1 << 20


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
            if path.stat().st_size > _MAX_MANIFEST:
                raise ValueError("too large")
            data = json.loads(path.read_text("utf-8"))
            if data.get("manifest") != MANIFEST_VERSION:
                raise ValueError(f"manifest version {data.get('manifest')!r}")
            return replace(VoiceInfo.from_dict(data), name=name)
        except OSError as error:
            raise storage_error(error, path, "read") from error
        except (ValueError, AttributeError, RecursionError, VoiceFormatError) as error:
            raise VoiceFormatError(
                f"the manifest of voice {name!r} is damaged ({error}): remove and import it again"
            ) from error

    def voice_path(self, name: str) -> Path:
        """The voice file. Raises VoiceNotFoundError."""
        if not self.has(name):
            raise self.not_found(name)
        return self.root / name / _VOICE

    def index_path(self, name: str) -> Path | None:
        """The index file, None if the voice has none. Raises VoiceNotFoundError."""
        path = self.voice_path(name).with_name(_INDEX)
        return path if path.is_file() else None

    def not_found(self, name: str) -> VoiceNotFoundError:
        """The error for a name that is not there, with the names that are."""
        names = self.names()
        have = f"it has {', '.join(names[:10])}{', ...' if len(names) > 10 else ''}" if names else "it is empty"
        return VoiceNotFoundError(f"no voice {name[:80]!r} in the library {self.root}: {have}")

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
        if name is not None and not valid_name(name):
            raise SettingsError(f"{name[:80]!r} cannot be a voice's name: {NAME_RULE}")
        with _found(Path(source).expanduser()) as found:
            loaded = load_voice_file(found.voice)
            loaded.model("cpu")
            chosen = Path(index).expanduser() if index is not None else found.index
            retrieval = None if chosen is None else RetrievalIndex.read(chosen, dim=loaded.info.content_dim)
            info = replace(
                loaded.info,
                name=name or clean_name(Path(found.name).stem),
                source=Path(source).name,
                source_sha256=_hash(found.voice),
                licence=licence or loaded.info.licence,
                imported=datetime.now(UTC).isoformat(timespec="seconds"),
            )
            voice = _stored_bytes(found.voice, loaded, info.licence)
        return self._store(info, voice, retrieval, replace_existing)

    def remove(self, name: str) -> None:
        """Delete a voice. Raises VoiceNotFoundError, StorageError."""
        with self._locked():
            if not valid_name(name) or not (self.root / name).is_dir():
                raise self.not_found(name)
            trash = self.root / f"{_TRASH}{secrets.token_hex(6)}"
            (self.root / name).rename(trash)
            _delete(trash)

    def _store(self, info: VoiceInfo, voice: bytes, index: RetrievalIndex | None, replace_existing: bool) -> VoiceInfo:
        with self._locked():
            target = self.root / info.name
            self._check_free(info.name, replace_existing)
            staging = self.root / f"{_STAGING}{secrets.token_hex(6)}"
            try:
                staging.mkdir()
                _write(staging / _VOICE, voice)
                info = replace(info, sha256=hashlib.sha256(voice).hexdigest(), size=len(voice))
                if index is not None:
                    data = index.to_bytes()
                    _write(staging / _INDEX, data)
                    digest = hashlib.sha256(data).hexdigest()
                    info = replace(info, index_vectors=index.count, index_bytes=len(data), index_sha256=digest)
                manifest = {"manifest": MANIFEST_VERSION, **info.as_dict()}
                _write(staging / _MANIFEST, json.dumps(manifest, indent=1).encode())
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
            raise SettingsError(f"the library has a voice {other!r} already: choose another --name, or --replace")

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


@contextmanager
def _found(source: Path) -> Iterator[FoundVoice]:
    """The voice file in a file, zip or folder; what was unpacked is gone afterwards."""
    if source.is_dir():
        yield find_in_folder(source)
    elif is_archive(source):
        with storage_errors("the temporary folder"):
            folder = tempfile.mkdtemp(prefix="rocktop-")
        try:
            yield unpack_archive(source, folder)
        finally:
            shutil.rmtree(folder, ignore_errors=True)
    else:
        beside = source.with_suffix(".index")
        yield FoundVoice(source, beside if beside.is_file() else None, source.name)


def _stored_bytes(path: Path, loaded: LoadedVoice, licence: str) -> bytes:
    """The file that the library keeps: RVC voices in our own form, others as they are."""
    if loaded.rvc is not None:
        return safetensors_form(replace(loaded.rvc, licence=licence))
    with storage_errors(path, "read"):
        return path.read_bytes()


def _hash(path: Path) -> str:
    with storage_errors(path, "read"):
        return file_sha256(path)


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
