"""Open a voice by its name in the library, by the word ``bundle``, or by a file."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import rocktop_ray
from rocktop_ray.errors import VoiceFormatError, VoiceNotFoundError
from rocktop_ray.features.index import RetrievalIndex
from rocktop_ray.heap import loading
from rocktop_ray.protocols import VoiceModel
from rocktop_ray.voices.archive import is_archive
from rocktop_ray.voices.families import load_voice_file
from rocktop_ray.voices.info import VoiceInfo
from rocktop_ray.voices.library import VoiceLibrary
from rocktop_ray.voices.names import BUNDLE
from rocktop_ray.voices.rvc_format import RvcFile

_ENDINGS = (".pth", ".pt", ".safetensors", ".zip")


@dataclass(frozen=True)
class Voice:
    """A voice ready to sing."""

    name: str
    model: VoiceModel
    index: RetrievalIndex | None
    info: VoiceInfo
    default_extractor: str | None
    """Name of the pitch extractor that suits the voice, if it says so."""


def open_voice(
    name_or_path: str | Path,
    *,
    library: str | Path | None = None,
    index: str | Path | None = None,
    device: str = "cpu",
) -> Voice:
    """Load a voice and its retrieval index.

    Args:
        name_or_path: ``bundle`` for the voice that ships with the project, a name in the library, or a voice file. A
            file brings the index of the same name beside it, if there is one.
        library: folder of the voice library; None is the user's own.
        index: an index file in place of the voice's own.
        device: torch device.

    Raises VoiceNotFoundError, VoiceFormatError, UnsafeFileError, IndexFormatError or StorageError.
    """
    path, own_index, info = _find(name_or_path, library)
    return open_files(path, Path(index) if index is not None else own_index, info=info, device=device)


def open_files(path: Path, index: Path | None, *, info: VoiceInfo | None = None, device: str = "cpu") -> Voice:
    """Load a voice from its files. ``info``: what a library knows of it; None takes what the file says itself.

    Raises as ``open_voice``.
    """
    with loading():
        loaded = load_voice_file(path)
        info = loaded.info if info is None else info
        retrieval = None if index is None else RetrievalIndex.read(index, dim=info.content_dim)
        if retrieval is not None:
            info = replace(info, index_vectors=retrieval.count)
        return Voice(info.name, loaded.model(device), retrieval, info, info.default_extractor)


def voice_info(name_or_path: str | Path, *, library: str | Path | None = None) -> VoiceInfo:
    """The facts of a voice, without making its network where its manifest has them. Raises as ``open_voice``."""
    path, _, info = _find(name_or_path, library)
    return load_voice_file(path).info if info is None else info


def read_rvc_voice(name_or_path: str | Path, *, library: str | Path | None = None) -> RvcFile:
    """What an RVC voice's file holds. Raises VoiceFormatError for voices of another family; else as ``open_voice``."""
    loaded = load_voice_file(_find(name_or_path, library)[0])
    if loaded.rvc is None:
        raise VoiceFormatError(
            f"{name_or_path} is a voice of the {loaded.info.family} family: only RVC voices can do this"
        )
    return loaded.rvc


def open_index(name_or_path: str | Path, *, library: str | Path | None = None) -> RetrievalIndex | None:
    """The retrieval index of a voice, None if it has none. Raises as ``open_voice``."""
    index = _find(name_or_path, library)[1]
    return None if index is None else RetrievalIndex.read(index)


def bundle_folder() -> Path:
    """Where the voice that ships with the project lies."""
    return Path(rocktop_ray.__file__).parent / "bundle"


def _find(name_or_path: str | Path, library: str | Path | None) -> tuple[Path, Path | None, VoiceInfo | None]:
    """Voice file, index file and, for a voice of the library, its facts."""
    text = str(name_or_path)
    if text == BUNDLE:
        path = bundle_folder() / "bundle.safetensors"
        if not path.is_file():
            raise VoiceNotFoundError("this installation has no bundled voice: give the name or file of another voice")
        return path, _beside(path), None
    path = Path(name_or_path).expanduser()
    shelf = VoiceLibrary(library)
    if isinstance(name_or_path, str) and shelf.has(text):
        return shelf.voice_path(text), shelf.index_path(text), shelf.info(text)
    if path.is_dir():
        raise VoiceFormatError(f"{text} is a folder: run 'rocktop voices import {text}' first, then use its name")
    if path.exists() or isinstance(name_or_path, Path) or path.suffix.lower() in _ENDINGS or len(path.parts) > 1:
        if not path.is_file():
            raise VoiceNotFoundError(f"no voice file {text}")
        if is_archive(path):
            raise VoiceFormatError(f"{text} is an archive: run 'rocktop voices import {text}' first, then use its name")
        return path, _beside(path), None
    raise shelf.not_found(text)


def _beside(path: Path) -> Path | None:
    index = path.with_suffix(".index")
    return index if index.is_file() else None
