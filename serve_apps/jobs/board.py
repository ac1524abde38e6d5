"""The jobs of a deployment: who waits, who runs, what came of it. They outlive the process that holds them."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

from filelock import BaseFileLock

from rocktop_ray.errors import (
    JobCrashedError,
    JobNotFoundError,
    JobStateError,
    QueueFullError,
    RocktopError,
    SettingsError,
)
from rocktop_ray.store.storage import Storage
from serve_apps.config import LimitsConfig
from serve_apps.ids import uuid7
from serve_apps.jobs.crew import MAX_STARTS, Crew, JobMeter
from serve_apps.jobs.hold import hold
from serve_apps.jobs.ledger import Ledger
from serve_apps.jobs.protocol import FINAL, Job, JobProgress, Runner
from serve_apps.jobs.records import Record, check_id, error_data
from serve_apps.jobs.retention import Keeper

PATIENCE = 900.0
"""Seconds over which work is tried again that a store or a stage refused for the time being."""
STATE_BYTES = 1 << 30
"""Of all jobs as they were sent, together: they are kept in memory, and one may hold 20 MiB of ``data:`` addresses."""
WATCH_SECONDS = 0.1
"""Least time between two states that a watcher is told."""

_log = logging.getLogger(__name__)


class JobBoard:
    """Implements ``protocol.Jobs`` in one asyncio loop. One board at a time for a store: folders are locked.

    Every change of status is in the store before it is acted upon (submit, start) or soon after (end); so a process
    that is killed takes up again what waited and what ran. Use ``start`` before anything else and ``close`` at the end.
    """

    def __init__(
        self,
        store: Storage,
        runners: Mapping[str, Runner],
        limits: LimitsConfig,
        *,
        patience: float = PATIENCE,
        sweep_seconds: float = 60.0,
        orphan_seconds: float = 6 * 3600.0,
        state_bytes: int = STATE_BYTES,
        meter: JobMeter | None = None,
    ) -> None:
        """``patience``: see PATIENCE; ``orphan_seconds``: age at which takes and results of no job are removed;
        ``state_bytes``: see STATE_BYTES.
        """
        self.limits = limits
        self._ledger = Ledger(store)
        self._crew = Crew(self._ledger, runners, limits.running_jobs, patience, meter)
        self._keeper = Keeper(self._ledger, limits, orphan_seconds, state_bytes // 2)
        self._sweep_seconds, self._state_bytes = sweep_seconds, state_bytes
        self._full = asyncio.Event()
        """Set to have what is old removed soon."""
        self._records: dict[str, Record] = {}
        """By id, oldest first."""
        self._creating: dict[str, asyncio.Event] = {}
        """Jobs that are being written for the first time."""
        self._creating_bytes = 0
        self._latest = 0.0
        """When the newest job was made."""
        self._sweeping: asyncio.Task[None] | None = None
        self._hold: BaseFileLock | None = None

    async def start(self) -> None:
        """Take up the jobs of the store. May be called again after it failed.

        Raises StorageError; StorageUnavailableError while another board holds the folder.
        """
        if self._hold is None:
            self._hold = await self._ledger.call(hold, self._ledger.store)
        records = await self._ledger.load(Record.from_bytes)
        records.sort(key=lambda record: (record.job.created, record.job.id))
        self._records = {record.job.id: record for record in records}
        self._latest = records[-1].job.created if records else 0.0
        interrupted = [record for record in records if record.job.status == "running"]
        for record in interrupted + [record for record in records if record.job.status == "queued"]:
            self._resume(record)
        self._sweeping = asyncio.get_running_loop().create_task(self._sweep())

    async def close(self, seconds: float = 5.0) -> None:
        """Stop; jobs that run go back to those that wait, for the next process. Later calls give QueueFullError."""
        if self._sweeping:
            self._sweeping.cancel()
        await self._crew.stop(seconds)
        await self._ledger.close(seconds)
        if self._hold is not None:
            self._hold.release()

    async def submit(
        self,
        kind: str,
        payload: dict[str, Any],
        *,
        group: str | None = None,
        owner: str | None = None,
        id: str | None = None,
    ) -> Job:
        """See ``protocol.Jobs``."""
        ids = None if id is None else [id]
        return (await self.submit_all(kind, [payload], group=group, owner=owner, ids=ids))[0]

    async def submit_all(
        self,
        kind: str,
        payloads: Sequence[dict[str, Any]],
        *,
        group: str | None = None,
        owner: str | None = None,
        ids: Sequence[str] | None = None,
    ) -> Sequence[Job]:
        """See ``protocol.Jobs``. The jobs are in the store when this returns."""
        if not self._crew.knows(kind):
            raise SettingsError(f"there are no jobs of the kind {kind!r}", stage="jobs")
        names = [check_id(id) for id in ids] if ids is not None else [uuid7() for _ in payloads]
        if len(names) != len(payloads) or len(set(names)) != len(names):
            raise SettingsError("every job needs an id of its own", stage="jobs")
        while busy := [self._creating[id] for id in names if id in self._creating]:  # the same call, made again
            await busy[0].wait()
        known = [self._records[id].job for id in names if id in self._records]
        if any((job.kind, job.owner) != (kind, owner) for job in known):
            raise SettingsError("there is another job of that id", stage="jobs")
        new = {id: payload for id, payload in zip(names, payloads, strict=True) if id not in self._records}
        self._check_room(len(new))
        records = [Record(self._new(id, kind, payload, group, owner)) for id, payload in new.items()]
        states = {record.job.id: _state(record) for record in records}
        for record in records:
            record.size = len(states[record.job.id])
        size = sum(record.size for record in records)
        self._check_memory(size)
        written = asyncio.Event()
        self._creating.update(dict.fromkeys(new, written))
        self._creating_bytes += size
        try:
            await self._ledger.create(states)
            self._records.update({record.job.id: record for record in records})
            self._crew.add(*records)
        finally:
            self._creating_bytes -= size
            for id in new:
                del self._creating[id]
            written.set()
        return [self._view(self._find(id)) for id in names]

    async def get(self, id: str) -> Job:
        """See ``protocol.Jobs``."""
        return self._view(self._find(id))

    async def list(
        self,
        *,
        kind: str | None = None,
        group: str | None = None,
        owner: str | None = None,
        limit: int = 50,
        after: str | None = None,
    ) -> Sequence[Job]:
        """See ``protocol.Jobs``."""
        before = self._find(after).job.created if after is not None else float("inf")
        found: list[Job] = []
        for record in reversed(self._records.values()):
            job = record.job
            if len(found) == limit:
                break
            if job.created >= before or (kind is not None and job.kind != kind):
                continue
            if (group is not None and job.group != group) or (owner is not None and job.owner != owner):
                continue
            found.append(self._view(record))
        return found

    async def watch(self, id: str) -> AsyncGenerator[Job, None]:
        """See ``protocol.Jobs``."""
        record = self._find(id)
        changed = asyncio.Event()
        record.watchers.add(changed)
        told: Job | None = None
        try:
            while True:
                changed.clear()
                job = self._view(record)
                if job != told:
                    told = job
                    yield job
                    if job.status in FINAL:
                        return
                    await _within(record.final, WATCH_SECONDS)
                await changed.wait()
        finally:
            record.watchers.discard(changed)

    async def wait(self, id: str, seconds: float) -> Job:
        """See ``protocol.Jobs``."""
        record = self._find(id)
        await _within(record.final, seconds)
        return self._view(record)

    async def cancel(self, id: str) -> Job:
        """See ``protocol.Jobs``. Returns when the store knows, or after five seconds."""
        record = self._find(id)
        if record.job.status not in FINAL:
            self._crew.cancel(record)
            await self._settled([record])
        return self._view(record)

    async def remove(self, id: str) -> None:
        """See ``protocol.Jobs``."""
        record = self._find(id)
        if record.job.status not in FINAL:
            raise JobStateError("the job still waits or runs; cancel it first", retryable=True)
        del self._records[id]
        await self._keeper.remove([record.job])
        await self._settled([record])

    async def purge(self, kind: str, group: str | None = None) -> int:
        """See ``protocol.Jobs``."""
        waiting = [
            record
            for record in self._records.values()
            if record.job.status == "queued" and record.job.kind == kind and group in (None, record.job.group)
        ]
        self._crew.cancel(*waiting)
        await self._settled(waiting)
        return len(waiting)

    async def counts(self, kind: str | None = None, group: str | None = None) -> dict[str, int]:
        """How many jobs there are of each status."""
        counts = dict.fromkeys(("queued", "running", "done", "failed", "cancelled"), 0)
        for record in self._records.values():
            if kind in (None, record.job.kind) and group in (None, record.job.group):
                counts[record.job.status] += 1
        return counts

    def _resume(self, record: Record) -> None:
        """A job that the last process left waiting or running."""
        if record.starts >= MAX_STARTS:
            why = f"the process that worked on this take was killed {record.starts} times; it is not tried again"
            self._crew.end(record, "failed", error=error_data(JobCrashedError(why)))
        elif not self._crew.knows(record.job.kind):
            why = f"this deployment does not work on jobs of the kind {record.job.kind!r}"
            self._crew.end(record, "failed", error=error_data(SettingsError(why, stage="jobs")))
        else:
            if record.job.status == "running":  # it waits now, and shall not come first at the next start
                record.change(status="queued", started=None, progress=JobProgress())
                self._ledger.save(record.job.id, record.to_bytes())
            self._crew.add(record)

    async def _settled(self, records: Sequence[Record]) -> None:
        """Wait until the store knows of an end; while it is away, no longer than five seconds."""
        with suppress(TimeoutError):
            async with asyncio.timeout(5.0):
                for record in records:
                    await self._ledger.settled(record.job.id)

    def _find(self, id: str) -> Record:
        record = self._records.get(id)
        if record is None:
            raise JobNotFoundError("there is no such job; finished ones are removed after a while")
        return record

    def _view(self, record: Record) -> Job:
        position = self._crew.position(record)
        return record.job if position is None else replace(record.job, queue_position=position)

    def _check_room(self, count: int) -> None:
        """Raises QueueFullError."""
        taken = len(self._crew) + len(self._creating)
        if not self._crew.closing and taken + count <= self.limits.jobs:
            return
        wait = min(60.0, max(1.0, self._crew.typical * count / self.limits.running_jobs))
        room = max(0, self.limits.jobs - taken)
        what = (
            "the service is stopping" if self._crew.closing else f"{taken} jobs wait or run, there is room for {room}"
        )
        raise QueueFullError(f"{what}; try again later", retry_after=wait)

    def _check_memory(self, size: int) -> None:
        """Raises QueueFullError."""
        held = self._creating_bytes + sum(record.size for record in self._records.values())
        if held + size > self._state_bytes:
            self._full.set()
            raise QueueFullError(
                f"the jobs that are kept hold {held >> 20} MiB of requests, there is no room for this one; try again "
                "later, or name addresses instead of sending takes inside the request",
                retry_after=10.0,
            )

    def _new(self, id: str, kind: str, payload: dict[str, Any], group: str | None, owner: str | None) -> Job:
        self._latest = max(time.time(), self._latest + 1e-5)  # no two alike: the order of jobs is that of their times
        return Job(id, kind, "queued", payload, self._latest, group=group, owner=owner)

    async def _sweep(self) -> None:
        while True:
            try:
                sizes = {id: record.size for id, record in self._records.items()}
                old, orphans = await self._keeper.plan([record.job for record in self._records.values()], sizes)
                for job in old:
                    self._records.pop(job.id, None)
                await self._keeper.remove(old, orphans)
            except RocktopError as error:
                _log.warning("old jobs could not be removed: %s", error.code)
            await asyncio.sleep(min(1.0, self._sweep_seconds))  # however full it is
            await _within(self._full, self._sweep_seconds - 1.0)
            self._full.clear()


def _state(record: Record) -> bytes:
    try:
        return record.to_bytes()
    except (TypeError, ValueError) as error:
        raise SettingsError(f"a job's payload must be JSON data: {error}", stage="jobs") from error


async def _within(event: asyncio.Event, seconds: float) -> None:
    """Wait for an event, or that long."""
    with suppress(TimeoutError):
        await asyncio.wait_for(event.wait(), seconds)
