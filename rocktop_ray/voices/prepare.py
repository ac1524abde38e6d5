"""Make a stranger's voice ready for a library: found, read, checked, in the form in which libraries keep it."""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from rocktop_ray.errors import SettingsError, VoiceFormatError, storage_errors
from rocktop_ray.features.index import RetrievalIndex
from rocktop_ray.settings import ConvertSettings
from rocktop_ray.store.digest import file_sha256
from rocktop_ray.voices.archive import FoundVoice, find_in_folder, is_archive, unpack_archive
from rocktop_ray.voices.families import LoadedVoice, load_voice_file
from rocktop_ray.voices.info import VoiceInfo, plain_info
from rocktop_ray.voices.names import NAME_RULE, clean_name, valid_name
from rocktop_ray.voices.rvc_format import safetensors_form


@dataclass(frozen=True)
class PreparedVoice:
    """Everything that a library keeps of a voice."""

    info: VoiceInfo
    """With sizes and hashes of the bytes below."""
    voice: bytes
    """The voice file."""
    index: bytes | None


def prepare_voice(
    source: str | Path, *, name: str | None = None, index: str | Path | None = None, licence: str = ""
) -> PreparedVoice:
    """Read and check a voice: a ``.pth``, a ``.safetensors``, or a zip or folder with one, and its index.

    The name comes from the file if it is not given. Raises VoiceFormatError, UnsafeFileError, IndexFormatError,
    VoiceNotFoundError (no such file), SettingsError (a name that cannot be used), StorageError.
    """
    if name is not None and not valid_name(name):
        raise SettingsError(f"{name[:80]!r} cannot be a voice's name: {NAME_RULE}")
    with found_voice(Path(source).expanduser()) as found:
        loaded = load_voice_file(found.voice)
        loaded.model("cpu")
        _check_defaults(loaded.info)
        chosen = Path(index).expanduser() if index is not None else found.index
        retrieval = None if chosen is None else RetrievalIndex.read(chosen, dim=loaded.info.content_dim)
        licence = licence or loaded.info.licence
        voice = _stored_bytes(found.voice, loaded, licence)
        facts = replace(
            loaded.info,
            name=name or clean_name(Path(found.name).stem),
            source=Path(source).name,
            source_sha256=_hash(found.voice),
            licence=licence,
            imported=datetime.now(UTC).isoformat(timespec="seconds"),
            sha256=hashlib.sha256(voice).hexdigest(),
            size=len(voice),
        )
    info = plain_info(facts)
    if retrieval is None:
        return PreparedVoice(info, voice, None)
    data = retrieval.to_bytes()
    digest = hashlib.sha256(data).hexdigest()
    info = replace(info, index_vectors=retrieval.count, index_bytes=len(data), index_sha256=digest)
    return PreparedVoice(info, voice, data)


@contextmanager
def found_voice(source: Path) -> Iterator[FoundVoice]:
    """The voice file in a file, zip or folder; what was unpacked is gone afterwards. Raises as ``archive`` does."""
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


def _check_defaults(info: VoiceInfo) -> None:
    try:
        ConvertSettings.from_mapping(info.defaults)
    except (SettingsError, TypeError) as error:  # TypeError: a list where a word should be
        raise VoiceFormatError(f"{info.source}: its default settings cannot be used ({error})") from error


def _stored_bytes(path: Path, loaded: LoadedVoice, licence: str) -> bytes:
    """The file that a library keeps: RVC voices in our own form, others as they are."""
    if loaded.rvc is not None:
        return safetensors_form(replace(loaded.rvc, licence=licence))
    with storage_errors(path, "read"):
        return path.read_bytes()


def _hash(path: Path) -> str:
    with storage_errors(path, "read"):
        return file_sha256(path)
