"""What people share: a zip, or a folder, with one voice file, its index, and whatever else."""

from __future__ import annotations

import re
import shutil
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from rocktop_ray.errors import VoiceFormatError, storage_error, storage_errors

MAX_ENTRIES = 10_000
MAX_BYTES = 4 << 30
"""Most bytes that are unpacked."""
_MAX_RATIO = 200
_VOICES = (".pth", ".safetensors")
_DAMAGE = (zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError, EOFError, ValueError, IndexError)
"""What reading a damaged zip runs into; IndexError: a file without a name."""
_TRAINING = re.compile(r"[GD]_\d+\.pth", re.IGNORECASE)
_RUN, _BEST = "run.json", "best.safetensors"
"""Files of a finished training run, see ``train_loops.rvc.finish``."""


@dataclass(frozen=True)
class FoundVoice:
    """A voice file and the index that goes with it. ``name`` is the name of the voice file as it was found."""

    voice: Path
    index: Path | None
    name: str


def is_archive(path: str | Path) -> bool:
    """Whether the file is a zip other than one that torch.save wrote."""
    try:
        if not Path(path).is_file() or not zipfile.is_zipfile(path):
            return False
        with zipfile.ZipFile(path) as archive:
            return not any(name.count("/") == 1 and name.endswith("/data.pkl") for name in archive.namelist())
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError):
        return False


def unpack_archive(path: str | Path, folder: str | Path) -> FoundVoice:
    """Take the voice and its index out of a zip, into ``folder``, under names of our own.

    Names in the zip are never used as paths. Raises VoiceFormatError if there is not exactly one voice, or what
    unpacks is too large; StorageError if the disk refuses.
    """
    path, folder = Path(path), Path(folder)
    try:
        with zipfile.ZipFile(path) as archive:
            entries = [entry for entry in archive.infolist() if not entry.is_dir()]
            if len(entries) > MAX_ENTRIES:
                raise VoiceFormatError(f"{path.name} holds {len(entries)} files, at most {MAX_ENTRIES} are allowed")
            voice, index = _choose([entry.filename for entry in entries], path.name)
            by_name = {entry.filename: entry for entry in entries}
            suffix = PurePosixPath(voice.lower()).suffix
            unpacked = _unpack(archive, by_name[voice], folder / f"voice{suffix}", path.name)
            found = None if index is None else _unpack(archive, by_name[index], folder / "voice.index", path.name)
    except _DAMAGE as error:
        raise VoiceFormatError(f"{path.name} is damaged, cut off or encrypted: {str(error)[:100]}") from error
    except OSError as error:
        raise storage_error(error, path, "unpack") from error
    return FoundVoice(unpacked, found, _base(voice))


def find_in_folder(folder: str | Path) -> FoundVoice:
    """The voice and its index in a folder and below it. Raises VoiceFormatError unless there is exactly one voice."""
    folder = Path(folder)
    with storage_errors(folder, "read"):
        files = [path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()]
    voice, index = _choose(files, str(folder))
    return FoundVoice(folder / voice, None if index is None else folder / index, _base(voice))


def _choose(names: list[str], where: str) -> tuple[str, str | None]:
    """The one voice and its index among file names."""
    names = sorted(name for name in names if not _is_junk(name))
    voices = [name for name in names if name.lower().endswith(_VOICES) and not _TRAINING.fullmatch(_base(name))]
    if _RUN in names:
        voices = _finished(voices)
    if not voices:
        nested = any(name.lower().endswith((".zip", ".7z", ".rar")) for name in names)
        hint = "; it holds another archive: unpack that first" if nested else ""
        raise VoiceFormatError(f"{where} holds no voice (.pth or .safetensors){hint}")
    if len(voices) > 1:
        raise VoiceFormatError(
            f"{where} holds {len(voices)} voices, expected one: {_listed(voices)}. Import the right one"
        )
    indexes = [name for name in names if name.lower().endswith(".index")]
    added = [name for name in indexes if "trained" not in _base(name).lower()]
    if len(added) > 1:
        raise VoiceFormatError(f"{where} holds {len(added)} indexes: {_listed(added)}. Give the right one as the index")
    return voices[0], added[0] if added else None


def _finished(voices: list[str]) -> list[str]:
    """Of a training run of ours, the voice it ended with: in full precision, not the best so far nor a checkpoint."""
    return [name for name in voices if "/" not in name and name.endswith(".safetensors") and name != _BEST]


def _unpack(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, target: Path, where: str) -> Path:
    if entry.file_size > MAX_BYTES or entry.file_size > _MAX_RATIO * max(entry.compress_size, 1 << 16):
        raise VoiceFormatError(
            f"{where}: {_base(entry.filename)!r} unpacks to {entry.file_size} bytes, which is not plausible"
        )
    target.parent.mkdir(parents=True, exist_ok=True)
    # zipfile gives no more than the declared size, and compares the checksum at the end.
    with archive.open(entry) as source, target.open("xb") as file:
        shutil.copyfileobj(source, file, 1 << 20)
    return target


def _is_junk(name: str) -> bool:
    parts = name.replace("\\", "/").split("/")
    return "__MACOSX" in parts or parts[-1].startswith(".")


def _base(name: str) -> str:
    return name.replace("\\", "/").rsplit("/", 1)[-1]


def _listed(names: list[str]) -> str:
    return ", ".join(name[:80] for name in names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
