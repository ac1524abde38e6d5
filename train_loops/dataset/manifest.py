"""The manifest of a dataset: what is in it, what it was made with, and what was left out and why.

It is written last: a dataset without one is not finished. Nothing in it depends on when, where or by how many workers
it was made, so the same recordings and settings give the same bytes.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from rocktop_ray.errors import ObjectMissingError, TrainingError
from rocktop_ray.store.storage import Storage
from train_loops.dataset.config import FORMAT, DatasetConfig, digest
from train_loops.dataset.features import Identity

MANIFEST = "manifest.json"
KIND = "rocktop dataset"
_LIMIT = 1 << 30


@dataclass(frozen=True)
class TakeEntry:
    """A take of the dataset."""

    key: str
    """Its file, below the source."""
    speaker: str
    content: str
    seconds: float
    rate: int
    peak_dbfs: float
    level_dbfs: float
    notes: list[str]
    short: int
    silent: int
    """Slices left out, see ``slices.Slices``."""
    parts: list[dict[str, Any]]
    """``key``, ``bytes``, ``sha256``, and for each slice its ``starts`` and ``frames``; see ``workers.statistics``."""

    @property
    def slices(self) -> int:
        """How many it gave."""
        return sum(len(part["frames"]) for part in self.parts)

    @property
    def sliced_seconds(self) -> float:
        """Of all its slices; overlaps count twice."""
        return sum(sum(part["frames"]) for part in self.parts) / 100


@dataclass(frozen=True)
class Rejected:
    """A recording that is not in the dataset."""

    key: str
    speaker: str
    reason: str
    """One of ``takes.REASONS``, or ``failed``: another run tries it again."""
    message: str


@dataclass(frozen=True)
class Manifest:
    """Everything about a dataset but its tensors."""

    source: str
    """Where the recordings were; holds no secret."""
    config: DatasetConfig
    networks: Identity
    speakers: list[str]
    """Their numbers are the places here."""
    takes: list[TakeEntry]
    rejected: list[Rejected] = field(default_factory=list)
    others: list[str] = field(default_factory=list)
    """Files that are not recordings."""

    @property
    def fingerprint(self) -> str:
        """Of what is learned from: contents, who sings them, settings, networks; not of names and order of files."""
        contents = sorted([entry.speaker, entry.content] for entry in self.takes)
        return digest([FORMAT, contents, self.config.as_mapping(), asdict(self.networks)])

    @property
    def failed(self) -> list[Rejected]:
        """What another run would try again."""
        return [entry for entry in self.rejected if entry.reason == "failed"]

    def counts(self) -> dict[str, Any]:
        """Takes, slices and seconds, in all and for each speaker."""
        by_speaker = {}
        for speaker in self.speakers:
            mine = [entry for entry in self.takes if entry.speaker == speaker]
            by_speaker[speaker] = _count(mine)
        return {**_count(self.takes), "rejected": len(self.rejected), "speakers": by_speaker}

    def as_mapping(self) -> dict[str, Any]:
        """Plain data."""
        return {
            "kind": KIND,
            "format": FORMAT,
            "fingerprint": self.fingerprint,
            "source": self.source,
            "config": self.config.as_mapping(),
            "networks": asdict(self.networks),
            "counts": self.counts(),
            "speakers": self.speakers,
            "takes": [asdict(entry) for entry in self.takes],
            "rejected": [asdict(entry) for entry in self.rejected],
            "others": self.others,
        }

    @classmethod
    def from_mapping(cls, values: Mapping[str, Any]) -> Manifest:
        """Raises TrainingError if it is not a manifest, of another version, or was changed by hand."""
        if not isinstance(values, Mapping) or values.get("kind") != KIND:
            raise TrainingError("this is not the manifest of a dataset")
        if values.get("format") != FORMAT:
            raise TrainingError(f"the dataset has format {values.get('format')}, not {FORMAT}; preprocess again")
        try:
            made = cls(
                str(values["source"]),
                DatasetConfig.from_mapping(values["config"]),
                Identity(**values["networks"]),
                list(values["speakers"]),
                [TakeEntry(**_known(TakeEntry, entry)) for entry in values["takes"]],
                [Rejected(**_known(Rejected, entry)) for entry in values["rejected"]],
                list(values["others"]),
            )
            fingerprint = made.fingerprint
        except (KeyError, TypeError, AttributeError) as error:
            raise TrainingError(f"the manifest of the dataset is not complete ({error}); preprocess again") from error
        if fingerprint != values.get("fingerprint"):
            raise TrainingError("the manifest does not fit its own fingerprint; preprocess again")
        return made

    def write(self, target: Storage) -> None:
        """Raises StorageError."""
        text = json.dumps(self.as_mapping(), sort_keys=True, ensure_ascii=False, indent=1)
        target.write(MANIFEST, text.encode())

    @classmethod
    def read(cls, target: Storage) -> Manifest:
        """Raises TrainingError if there is none or it cannot be used, StorageError."""
        try:
            data = target.read(MANIFEST, limit=_LIMIT)
        except ObjectMissingError as error:
            raise TrainingError(
                f"there is no finished dataset at {target.url}: make one with 'python -m train_loops.preprocess'"
            ) from error
        try:
            return cls.from_mapping(json.loads(data))
        except ValueError as error:
            raise TrainingError(f"the manifest at {target.url} is not JSON; preprocess again") from error


def _known(kind: type, values: Mapping[str, Any]) -> dict[str, Any]:
    return {one.name: values[one.name] for one in fields(kind)}


def _count(takes: list[TakeEntry]) -> dict[str, Any]:
    return {
        "takes": len(takes),
        "slices": sum(entry.slices for entry in takes),
        "seconds": round(sum(entry.seconds for entry in takes), 2),
        "sliced_seconds": round(sum(entry.sliced_seconds for entry in takes), 2),
    }
