"""The two kinds of work on takes, wherever they run. What they make is in the store before they answer.

Tasks and answers are plain data. A take that cannot be used is an answer, not an error: errors are left for what
concerns all takes, the target store and the weights.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from rocktop_ray.errors import AudioError, ModelMissingError, ObjectMissingError, RocktopError, SettingsError
from rocktop_ray.store.storage import Storage
from train_loops.dataset.config import FORMAT, DatasetConfig, digest
from train_loops.dataset.features import Builders, FeatureMaker, Identity, SliceData
from train_loops.dataset.parts import PartFile, part_bytes
from train_loops.dataset.takes import RejectedTakeError, TakeFacts, TakeWindow, local_file, scan_take

Answer = dict[str, Any]
Task = dict[str, Any]

SEMITONES = 128
SHARES = 20
"""Bins of the histograms: MIDI notes, and shares of voiced frames from 0 to 1."""
_UNEXPECTED = (ArithmeticError, AttributeError, LookupError, MemoryError, OSError, RuntimeError, TypeError, ValueError)


@dataclass(frozen=True)
class Job:
    """All that a worker needs to know; can be pickled."""

    source: Storage
    target: Storage
    config: DatasetConfig
    device: str = "auto"
    threads: int = 1
    """Of each worker. The same dataset to the bit needs the same number: sums of floats depend on it."""
    builders: Builders = field(default_factory=Builders)


def record_key(scan: str, take: str, size: int, etag: str) -> str:
    """Where what was found out about a file is kept; another one if the file or the settings change."""
    return f"takes/{digest([scan, take, size, etag])}.json"


def features_key(config: DatasetConfig, identity: Identity, content: str) -> str:
    """Name of all that is made of one take's content with these settings and these networks."""
    return digest([FORMAT, content, config.scan_fingerprint, config.level, asdict(identity)])


def part_key(name: str, number: int) -> str:
    """Where a part lies."""
    return f"parts/{name[:2]}/{name}/{number:04d}.parquet"


def receipt_key(name: str, first: int) -> str:
    """Where it is noted that the parts from number ``first`` on are done."""
    return f"receipts/{name}-{first:04d}.json"


class ScanWorker:
    """Decodes takes, checks them and plans their slices."""

    def __init__(self, job: Job) -> None:
        self._job = job

    def __call__(self, task: Task) -> Answer:
        """``key``, ``bytes``, ``etag`` -> the same with ``facts``, ``rejected`` or ``failed``; the last is not kept.

        Raises StorageError of the target.
        """
        job = self._job

        def scan() -> Answer:
            with local_file(job.source, task["key"]) as path:
                try:
                    return {"facts": asdict(scan_take(path, job.config))}
                except (AudioError, SettingsError) as error:
                    reason = error.reason if isinstance(error, RejectedTakeError) else "unreadable"
                    return {"rejected": {"reason": reason, "message": error.message.replace(str(path), task["key"])}}

        answer = {"format": FORMAT, **task, **_guarded(scan)}
        if "failed" not in answer:
            key = record_key(job.config.scan_fingerprint, task["key"], task["bytes"], task["etag"])
            job.target.write(key, _json(answer))
        return answer


class FeatureWorker:
    """Makes the parts of takes."""

    def __init__(self, job: Job, identity: Identity) -> None:
        """Loads the networks. Raises ModelMissingError if this machine's are others than the job's."""
        self._job = job
        self._maker = FeatureMaker(job.config, job.device, job.builders)
        if self._maker.identity != identity:
            raise ModelMissingError(
                f"a worker has other weights than the job began with: {self._maker.identity} and {identity}; install "
                "the same models on all nodes"
            )

    def __call__(self, task: Task) -> Answer:
        """``key``, ``etag``, ``name``, ``first``, ``facts``, ``parts`` (spans) -> a receipt, or ``failed``.

        Parts that are there already stay. Raises StorageError of the target.
        """
        receipt = _guarded(lambda: self._receipt(task))
        answer = {"format": FORMAT, "name": task["name"], "first": task["first"], **receipt}
        if "failed" not in answer:
            self._job.target.write(receipt_key(task["name"], task["first"]), _json(answer))
        return {**answer, "key": task["key"]}

    def _receipt(self, task: Task) -> Answer:
        job, name = self._job, task["name"]
        facts = TakeFacts(**task["facts"])
        window: TakeWindow | None = None
        made = []
        with local_file(job.source, task["key"]) as path:
            if job.source.stat(task["key"]).etag != task["etag"]:
                raise AudioError(f"{task['key']} was replaced while it was read; run again")
            try:
                for number, part in enumerate(task["parts"], task["first"]):
                    key = part_key(name, number)
                    try:
                        data = _target(job.target.read, key)
                    except ObjectMissingError:
                        window = window or TakeWindow(path, facts, job.config)
                        slices = self._maker.slices(window, [(begin, end) for begin, end in part])
                        data = part_bytes(slices, self._maker.identity.dim, self._about(facts, number, slices))
                        _target(job.target.write, key, data)
                    made.append(_entry(key, data))
            finally:
                if window is not None:
                    window.close()
        return {"parts": made}

    def _about(self, facts: TakeFacts, number: int, slices: list[SliceData]) -> dict[str, Any]:
        return {
            "format": FORMAT,
            "kind": "part of a dataset",
            "config": self._job.config.as_mapping(),
            "networks": asdict(self._maker.identity),
            "content": facts.content,
            "number": number,
            "statistics": statistics(slices),
        }


class _TargetError(Exception):
    """Carries an error of the target store past the guard of one take."""


def _target(use: Callable[..., Any], *arguments: Any) -> Any:
    try:
        return use(*arguments)
    except ObjectMissingError:
        raise
    except RocktopError as error:
        raise _TargetError from error


def _guarded(work: Callable[[], Answer]) -> Answer:
    """``work``'s answer, or what went wrong with this take as ``failed``."""
    try:
        return work()
    except _TargetError as error:
        raise error.__cause__ or error from None
    except RocktopError as error:
        return {"failed": error.as_dict()}
    except _UNEXPECTED as error:
        failure = RocktopError(f"it could not be prepared ({type(error).__name__}: {error})", stage="training")
        return {"failed": failure.as_dict()}


def _entry(key: str, data: bytes) -> Answer:
    part = PartFile(io.BytesIO(data))
    return {"key": key, "bytes": len(data), "sha256": hashlib.sha256(data).hexdigest(), **part.about["statistics"]}


def statistics(slices: list[SliceData]) -> Answer:
    """Counts of a part: ``frames`` of each slice, ``midi`` notes of voiced frames, ``voiced`` frames, ``shares``."""
    midi, shares, voiced = np.zeros(SEMITONES, int), np.zeros(SHARES, int), 0
    for one in slices:
        if one.f0 is None:
            continue
        sung = one.f0[one.f0 > 0].astype(np.float64)
        notes = np.clip(np.round(69 + 12 * np.log2(sung / 440)), 0, SEMITONES - 1).astype(int)
        midi += np.bincount(notes, minlength=SEMITONES)
        shares[min(int(SHARES * len(sung) / len(one.f0)), SHARES - 1)] += 1
        voiced += len(sung)
    return {
        "starts": [one.start for one in slices],
        "frames": [2 * len(one.units) for one in slices],
        "midi": midi.tolist(),
        "shares": shares.tolist(),
        "voiced": voiced,
    }


def _json(value: Answer) -> bytes:
    return json.dumps(value, sort_keys=True, ensure_ascii=False).encode()
