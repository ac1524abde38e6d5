"""A dataset from recordings: what is not in the store yet is made, and the manifest is written last.

Nothing is remembered but what the store holds. Of a file: a record (what was found out, addressed by name, size, ETag
and settings). Of a take's content: parts and receipts (addressed by content, settings and networks). So a run that was
killed anywhere goes on, a changed or new file is done, a removed one is no longer listed, and a renamed one is only
decoded.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

from rocktop_ray.errors import AudioError, SettingsError
from rocktop_ray.store.storage import Storage
from train_loops.dataset.config import FORMAT
from train_loops.dataset.features import Identity
from train_loops.dataset.layout import Layout, TakeFile, find_takes
from train_loops.dataset.manifest import MANIFEST, Manifest, Rejected, TakeEntry
from train_loops.dataset.runners import Runner
from train_loops.dataset.slices import group
from train_loops.dataset.workers import Answer, Job, Task, features_key, receipt_key, record_key

RUN_PARTS = 20
"""Parts that one task makes at most, some nine minutes: long takes are shared between workers."""
LOG_SECONDS = 5.0
_LOG = logging.getLogger(__name__)
_READERS = 16


def build_dataset(job: Job, runner: Runner, *, speaker: str | None = None, prune: bool = False) -> Manifest:
    """Makes the dataset of ``job`` or brings it up to date, and returns its manifest.

    Args:
        job: from where to where, and how.
        runner: who works.
        speaker: see ``layout.find_takes``.
        prune: afterwards, remove from the target what this manifest does not need.

    Raises AudioError if no take can be used, SettingsError, ModelMissingError, StorageError.
    """
    _check_places(job.source.url, job.target.url)
    layout = find_takes(job.source, speaker=speaker)
    _LOG.info("%d takes of %d speakers in %s", len(layout.takes), len(layout.speakers), job.source.url)
    identity = runner.identify(job)
    job = replace(job, config=replace(job.config, pitch=identity.pitch))  # what ``auto`` came to
    records = _scanned(job, runner, layout)
    kept, rejected = _sorted_out(layout, records)
    if not kept:
        first = rejected[0]
        raise AudioError(f"none of {len(rejected)} takes can be used; {first.key}: {first.message}", stage="training")
    receipts, failed = _made(job, runner, identity, kept)
    takes = []
    for file, facts in kept:
        if file.key in failed:
            rejected.append(Rejected(file.key, file.speaker, "failed", failed[file.key]["message"]))
            continue
        name = features_key(job.config, identity, facts["content"])
        parts = [part for first, _ in _runs(facts, job) for part in receipts[receipt_key(name, first)]["parts"]]
        shown = ("content", "seconds", "rate", "peak_dbfs", "level_dbfs", "notes", "short", "silent")
        takes.append(TakeEntry(file.key, file.speaker, **{field: facts[field] for field in shown}, parts=parts))
    if not takes:
        key, error = next(iter(failed.items()))
        raise AudioError(f"all of {len(failed)} takes failed; {key}: {error['message']}", stage="training")
    manifest = Manifest(
        job.source.url,
        job.config,
        identity,
        [one for one in layout.speakers if any(entry.speaker == one for entry in takes)],
        takes,
        sorted(rejected, key=lambda entry: entry.key),
        list(layout.others),
    )
    manifest.write(job.target)
    if prune:
        _prune(job, layout, manifest)
    return manifest


def _check_places(source: str, target: str) -> None:
    inner, outer = target.rstrip("/") + "/", source.rstrip("/") + "/"
    if inner.startswith(outer) or outer.startswith(inner):
        raise SettingsError(f"the dataset ({target}) and its recordings ({source}) must not lie in each other")


def _scanned(job: Job, runner: Runner, layout: Layout) -> dict[str, Answer]:
    """What is known of each file, by its key."""
    scan = job.config.scan_fingerprint
    places = {record_key(scan, file.key, file.bytes, file.etag): file for file in layout.takes}
    known = _read_all(job.target, [found.key for found in job.target.list("takes/") if found.key in places])
    records = {places[place].key: record for place, record in known.items()}
    tasks: list[Task] = [
        {"key": file.key, "bytes": file.bytes, "etag": file.etag} for file in layout.takes if file.key not in records
    ]
    # Long files first: they are not begun when all others have ended.
    tasks.sort(key=lambda task: -task["bytes"])
    _LOG.info("%d of them are known, %d to look at", len(records), len(tasks))
    progress = _Progress("looked at", len(tasks))
    for answer in runner.scan(job, tasks):
        records[answer["key"]] = answer
        progress.add(1, answer.get("facts", {}).get("seconds", 0.0))
    progress.end()
    return records


def _sorted_out(
    layout: Layout, records: dict[str, Answer]
) -> tuple[list[tuple[TakeFile, dict[str, Any]]], list[Rejected]]:
    """Takes to keep with their facts, in order, and the others; of takes of one content the first is kept."""
    kept: list[tuple[TakeFile, dict[str, Any]]] = []
    rejected: list[Rejected] = []
    first: dict[str, str] = {}
    for file in layout.takes:
        record = records[file.key]
        if facts := record.get("facts"):
            if facts["content"] in first:
                message = f"it sounds the same, to the bit, as {first[facts['content']]}"
                rejected.append(Rejected(file.key, file.speaker, "duplicate", message))
            else:
                first[facts["content"]] = file.key
                kept.append((file, facts))
        elif found := record.get("rejected"):
            rejected.append(Rejected(file.key, file.speaker, found["reason"], found["message"]))
        else:
            rejected.append(Rejected(file.key, file.speaker, "failed", record["failed"]["message"]))
    return kept, rejected


def _runs(facts: dict[str, Any], job: Job) -> Iterator[tuple[int, list[Any]]]:
    """Number of the first part, and parts, of each task of a take."""
    parts = group(facts["spans"], job.config.rate)
    for first in range(0, len(parts), RUN_PARTS):
        yield first, parts[first : first + RUN_PARTS]


def _made(
    job: Job, runner: Runner, identity: Identity, kept: list[tuple[TakeFile, dict[str, Any]]]
) -> tuple[dict[str, Answer], dict[str, dict[str, Any]]]:
    """Receipts by their key, and what went wrong by the file's key."""
    wanted: dict[str, Task] = {}
    for file, facts in kept:
        name = features_key(job.config, identity, facts["content"])
        for first, parts in _runs(facts, job):
            task = {"key": file.key, "etag": file.etag, "name": name, "first": first, "facts": facts, "parts": parts}
            wanted[receipt_key(name, first)] = task
    there = [found.key for found in job.target.list("receipts/") if found.key in wanted]
    receipts = _read_all(job.target, there)
    tasks = [task for key, task in wanted.items() if key not in receipts]
    tasks.sort(key=lambda task: -_seconds(task, job))
    hours = sum(_seconds(task, job) for task in tasks) / 3600
    _LOG.info("%d of %d pieces of work are done; %.2f hours to go", len(receipts), len(wanted), hours)
    lengths = {receipt_key(task["name"], task["first"]): _seconds(task, job) for task in tasks}
    failed: dict[str, dict[str, Any]] = {}
    progress = _Progress("pieces of takes", len(tasks))
    for answer in runner.features(job, identity, tasks):
        key = receipt_key(answer["name"], answer["first"])
        if "failed" in answer:
            failed[answer["key"]] = answer["failed"]
        else:
            receipts[key] = answer
        progress.add(1, lengths[key])
    progress.end()
    return receipts, failed


def _seconds(task: Task, job: Job) -> float:
    return float(sum(part[-1][1] - part[0][0] for part in task["parts"]) / job.config.rate)


def _read_all(target: Storage, keys: list[str]) -> dict[str, Answer]:
    """The JSON objects under these keys that are of our format; others are made again."""
    with ThreadPoolExecutor(_READERS) as readers:
        found = dict(zip(keys, readers.map(lambda key: _parsed(target.read(key)), keys), strict=True))
    return {key: value for key, value in found.items() if value is not None}


def _parsed(data: bytes) -> Answer | None:
    try:
        value = json.loads(data)
    except ValueError:
        return None
    return value if isinstance(value, dict) and value.get("format") == FORMAT else None


def _prune(job: Job, layout: Layout, manifest: Manifest) -> None:
    names = {features_key(job.config, manifest.networks, entry.content) for entry in manifest.takes}
    scan = job.config.scan_fingerprint
    needed = {record_key(scan, file.key, file.bytes, file.etag) for file in layout.takes}
    needed |= {part["key"] for entry in manifest.takes for part in entry.parts}
    for key in _below(job.target, ("takes/", "parts/", "receipts/")):
        if key not in needed and not (key.startswith("receipts/") and key[9:].split("-")[0] in names):
            job.target.delete(key)


def _below(target: Storage, prefixes: Iterable[str]) -> list[str]:
    return [found.key for prefix in prefixes for found in target.list(prefix) if found.key != MANIFEST]


class _Progress:
    """Lines in the log: how much is done, and how fast."""

    def __init__(self, what: str, total: int) -> None:
        self._what, self._total = what, total
        self._done, self._seconds = 0, 0.0
        self._began = self._logged = time.monotonic()

    def add(self, count: int, seconds: float) -> None:
        self._done += count
        self._seconds += seconds
        if time.monotonic() - self._logged >= LOG_SECONDS:
            self.end()

    def end(self) -> None:
        """Say where it stands."""
        if not self._total:
            return
        self._logged = time.monotonic()
        wall = max(self._logged - self._began, 1e-6)
        _LOG.info(
            "%s: %d of %d, %.3f hours of audio in %.0f s (%.1f hours per hour)",
            *(self._what, self._done, self._total, self._seconds / 3600, wall, self._seconds / wall),
        )
