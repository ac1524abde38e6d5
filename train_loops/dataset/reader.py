"""A dataset as examples for training: any slice at once, by speaker, with takes held out."""

from __future__ import annotations

import hashlib
import os
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Any, overload

import numpy as np
import numpy.typing as npt

from rocktop_ray.errors import SettingsError, TrainingError
from rocktop_ray.protocols import Array
from rocktop_ray.store.settings import StorageSettings
from rocktop_ray.store.storage import Storage, open_storage
from train_loops.dataset.manifest import Manifest, TakeEntry
from train_loops.dataset.parts import PartFile

HELD_OUT = 0.05
"""Share of the takes that is held out, unless another is wanted."""
_OPEN_FILES = 32
_FEWEST_PARTS = 3


@dataclass(frozen=True)
class Example:
    """A slice with everything that a voice learns from."""

    wave: Array
    """``[frames * rate / 100]``, full scale ±1, at the dataset's rate."""
    units: Array
    """``[frames / 2, dim]``, 50/s."""
    f0: Array | None
    """``[frames]`` Hz, 0 = unvoiced, 100/s; None if the dataset has none."""
    speaker: int
    """Number of the singer."""
    take: str
    """Key of the recording."""
    start: int
    """First sample in the take."""

    @property
    def name(self) -> str:
        """For messages."""
        return f"{self.take} at sample {self.start}"

    @property
    def frames(self) -> int:
        """Length in 10 ms."""
        return 2 * len(self.units)


@dataclass(frozen=True)
class _Place:
    part: str
    row: int
    start: int
    frames: int
    speaker: int
    take: str
    held_out: bool


class Dataset(Sequence[Example]):
    """Slices in the order of takes, parts and time. Safe in threads; can be pickled and used after a fork."""

    def __init__(self, storage: Storage, manifest: Manifest, places: Sequence[_Place]) -> None:
        """See ``open``."""
        self.manifest = manifest
        self._storage, self._places = storage, list(places)
        self._forget()

    @classmethod
    def open(
        cls, place: str | Path, settings: StorageSettings | None = None, *, held_out: float = HELD_OUT, seed: int = 0
    ) -> Dataset:
        """The dataset in a folder or at ``s3://bucket/prefix``.

        Args:
            place: as ``storage.open_storage`` takes it.
            settings: how to reach S3; None takes the environment's.
            held_out: share of takes, 0..0.5, that ``held_out`` gives and ``training`` does not.
            seed: another split.

        The split is made for each speaker by the content of takes, never inside one, so that takes that come or go do
        not move others, but for the last one: at least one take is held out of two or more. Of a speaker with a single
        take of three parts or more it is the last part.

        Raises TrainingError if there is no finished dataset, SettingsError, StorageError.
        """
        if not 0 <= held_out <= 0.5:
            raise SettingsError(f"the share that is held out is 0 to 0.5, not {held_out:g}")
        storage = open_storage(place, settings or StorageSettings.from_environment())
        manifest = Manifest.read(storage)
        return cls(storage, manifest, list(_places(manifest, held_out, seed)))

    def __len__(self) -> int:
        return len(self._places)

    @overload
    def __getitem__(self, index: int) -> Example: ...

    @overload
    def __getitem__(self, index: slice) -> Dataset: ...

    def __getitem__(self, index: int | slice) -> Example | Dataset:
        """One slice, read from the store now; or a part of the dataset. Raises TrainingError, StorageError."""
        if isinstance(index, slice):
            return self._where(self._places[index])
        place = self._places[index]
        file, lock = self._part(place.part)
        with lock:
            found = file.read(place.row)
        self._check(place, found.units)
        return Example(found.wave, found.units, found.f0, place.speaker, place.take, found.start)

    def units(self, index: int) -> Array:
        """Only the content units of a slice, ``[frames / 2, dim]``; the rest is not read. Raises TrainingError."""
        place = self._places[index]
        file, lock = self._part(place.part)
        with lock:
            found = file.units(place.row)
        self._check(place, found)
        return found

    @property
    def frames(self) -> npt.NDArray[np.int64]:
        """Length of every slice in 10 ms, without reading any: for batches of like length."""
        return np.array([place.frames for place in self._places], np.int64)

    @property
    def starts(self) -> npt.NDArray[np.int64]:
        """First sample of every slice in its take."""
        return np.array([place.start for place in self._places], np.int64)

    @property
    def speaker_numbers(self) -> npt.NDArray[np.int64]:
        """Who sings every slice."""
        return np.array([place.speaker for place in self._places], np.int64)

    @property
    def takes(self) -> list[str]:
        """Key of the recording of every slice, without reading any."""
        return [place.take for place in self._places]

    @property
    def speakers(self) -> list[str]:
        """Names; a number is a place here."""
        return self.manifest.speakers

    @property
    def training(self) -> Dataset:
        """What is not held out."""
        return self._where([place for place in self._places if not place.held_out])

    @property
    def held_out(self) -> Dataset:
        """What is held out."""
        return self._where([place for place in self._places if place.held_out])

    def of_speaker(self, speaker: str) -> Dataset:
        """One singer's slices. Raises SettingsError for an unknown name."""
        if speaker not in self.speakers:
            raise SettingsError(f"the dataset has no speaker {speaker!r}, only {', '.join(self.speakers)}")
        number = self.speakers.index(speaker)
        return self._where([place for place in self._places if place.speaker == number])

    def verify(self) -> None:
        """Reads every file and compares it with the manifest. Raises TrainingError with the first that differs."""
        for entry in self.manifest.takes:
            for part in entry.parts:
                if hashlib.sha256(self._storage.read(part["key"])).hexdigest() != part["sha256"]:
                    raise TrainingError(f"{part['key']} (of {entry.key}) is damaged; remove it and preprocess again")

    def __getstate__(self) -> dict[str, Any]:
        return {"manifest": self.manifest, "_storage": self._storage, "_places": self._places}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._forget()

    def _check(self, place: _Place, units: Array) -> None:
        if units.shape != (place.frames // 2, self.manifest.networks.dim):
            raise TrainingError(f"{place.part} is not the one of the manifest; preprocess again")

    def _where(self, places: Sequence[_Place]) -> Dataset:
        return Dataset(self._storage, self.manifest, places)

    def _forget(self) -> None:
        self._files: OrderedDict[str, tuple[PartFile, Lock]] = OrderedDict()
        self._process, self._lock = os.getpid(), Lock()
        self._arrow: Any = None

    def _part(self, key: str) -> tuple[PartFile, Lock]:
        if self._process != os.getpid():  # a fork shares positions in files and sockets with its parent
            self._forget()
        with self._lock:
            if key not in self._files:
                self._arrow = self._arrow or self._storage.arrow()
                try:
                    self._files[key] = PartFile(self._arrow.open_input_file(key)), Lock()
                except OSError as error:
                    raise TrainingError(f"{key} of the dataset cannot be read ({error}); preprocess again") from error
                while len(self._files) > _OPEN_FILES:
                    self._files.popitem(last=False)
            self._files.move_to_end(key)
            return self._files[key]


def _places(manifest: Manifest, share: float, seed: int) -> Iterator[_Place]:
    out = _held_out(manifest, share, seed)
    for entry in manifest.takes:
        number = manifest.speakers.index(entry.speaker)
        for part in entry.parts:
            for row, (start, frames) in enumerate(zip(part["starts"], part["frames"], strict=True)):
                yield _Place(part["key"], row, start, frames, number, entry.key, part["key"] in out)


def _held_out(manifest: Manifest, share: float, seed: int) -> set[str]:
    """Keys of parts."""
    if not share:
        return set()
    out: set[str] = set()
    for speaker in manifest.speakers:
        mine = sorted((entry for entry in manifest.takes if entry.speaker == speaker), key=lambda one: _draw(one, seed))
        if len(mine) > 1:
            chosen = [entry for entry in mine if _draw(entry, seed) < share] or mine[:1]
            out |= _keys(part for entry in chosen[: len(mine) - 1] for part in entry.parts)
        elif len(mine[0].parts) >= _FEWEST_PARTS:
            out |= _keys(mine[0].parts[-1:])
    return out


def _keys(parts: Iterable[dict[str, Any]]) -> set[str]:
    return {part["key"] for part in parts}


def _draw(entry: TakeEntry, seed: int) -> float:
    """A number in 0..1 that belongs to the take's content."""
    drawn = hashlib.sha256(f"{seed}:{entry.content}".encode()).digest()
    return int.from_bytes(drawn[:8], "big") / 2**64
