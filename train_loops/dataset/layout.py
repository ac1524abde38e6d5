"""Which recordings lie in a folder or under an S3 prefix, and who sings in them.

Two layouts of RVC and its relatives: a flat folder of takes is one speaker; a folder of folders is one speaker for each
(Applio's integer names become the speaker numbers). Deeper folders belong to the speaker above them.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import PurePosixPath

from rocktop_ray.audio.batch import AUDIO_SUFFIXES
from rocktop_ray.errors import AudioError, SettingsError
from rocktop_ray.store.storage import Stat, Storage

DEFAULT_SPEAKER = "speaker"
"""Name of the one speaker of a flat folder, unless another is given."""


@dataclass(frozen=True)
class TakeFile:
    """A recording as it lies in its store."""

    key: str
    speaker: str
    bytes: int
    etag: str
    """Changes with the content."""


@dataclass(frozen=True)
class Layout:
    """What was found."""

    takes: tuple[TakeFile, ...]
    """In the order of their keys."""
    speakers: tuple[str, ...]
    """A speaker's number is the place in this."""
    others: tuple[str, ...]
    """Keys of files that are not recordings, by their endings."""


def find_takes(source: Storage, *, speaker: str | None = None) -> Layout:
    """All recordings of a store in their layout.

    Files whose names the store refuses (hidden ones, control characters) are not seen.

    Args:
        source: the folder or prefix.
        speaker: name of the one speaker: everything below, in folders or not, is then that speaker's.

    Raises AudioError if there is none, SettingsError if takes lie both at the top and in folders (who sings the former
    is not said), StorageError.
    """
    takes: list[Stat] = []
    others: list[str] = []
    for found in source.list():
        if PurePosixPath(found.key).suffix.lower() in AUDIO_SUFFIXES:
            takes.append(found)
        else:
            others.append(found.key)
    if not takes:
        raise AudioError(f"there are no recordings in {source.url}", stage="input")
    takes.sort(key=lambda found: found.key)
    folders = {found.key.split("/")[0] for found in takes if "/" in found.key}
    flat = [found.key for found in takes if "/" not in found.key]
    if speaker is None and folders and flat:
        raise SettingsError(
            f"{source.url} holds takes ({flat[0]}) beside folders of takes ({sorted(folders)[0]}): put each speaker "
            "into a folder, or name the one speaker of all with --speaker"
        )
    one = speaker or (DEFAULT_SPEAKER if flat else None)
    return Layout(
        tuple(TakeFile(found.key, one or found.key.split("/")[0], found.bytes, found.etag) for found in takes),
        (one,) if one else order_speakers(folders),
        tuple(sorted(others)),
    )


def order_speakers(names: Iterable[str]) -> tuple[str, ...]:
    """Speakers in the order of their numbers: integer names by value, then the others by name."""
    return tuple(sorted(names, key=lambda name: (0, int(name), name) if name.isdecimal() else (1, 0, name)))
