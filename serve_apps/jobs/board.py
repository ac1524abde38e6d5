"""The jobs of a deployment: who waits, who runs, what came of it. They outlive the process that holds them."""

from __future__ import annotations

import asyncio
import logging
import time
import traceback
from collections.abc import AsyncGenerator, Hashable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import Any

from rocktop_ray.errors import (
    CancelledError,
    FetchError,
    JobCrashedError,
    JobNotFoundError,
    QueueFullError,
    RocktopError,
    SettingsError,
)
from rocktop_ray.store.storage import Storage
from serve_apps.config import LimitsConfig
from serve_apps.ids import uuid7
from serve_apps.jobs.fair_queue import FairQueue
from serve_apps.jobs.ledger import Ledger
from serve_apps.jobs.protocol import FINAL, Job, JobProgress, Runner, Status
from serve_apps.jobs.records import Record, check_id, error_data
from serve_apps.jobs.retention import Keeper

MAX_STARTS = 3
"""A job that was running this often when its process was killed is given up."""
PATIENCE = 900.0
"""Seconds over which work is tried again that a store or a stage refused for the time being."""
WATCH_SECONDS = 0.1
"""Least time between two states that a watcher is told."""

_log = logging.getLogger(__name__)


class JobBoard:
    """Implements ``protocol.Jobs`` in one asyncio loop. One board at a time for a store.

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
    ) -> None:
        """``patience``: see PATIENCE; ``orphan_seconds``: age at which takes and results of no job are removed."""
        self.limits, self._runners, self._patience = limits, dict(runners), patience
        self._ledger = Ledger(store)
        self._keeper = Keeper(self._ledger, limits, orphan_seconds)
        self._sweep_seconds = sweep_seconds
        self._records: dict[str, Record] = {}
        """By id, oldest first."""
        self._queue = FairQueue()
        self._running: set[Record] = set()
        self._creating: dict[str, asyncio.Event] = {}
        """Jobs that are being written for the first time."""
        self._latest = 0.0
        self._typical = 5.0
        """Seconds that a job takes, as of late."""
        self._closing = False
        self._sweeping: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Take up the jobs of the store. Raises StorageError."""
        records = await self._ledger.load(Record.from_bytes)
        records.sort(key=lambda record: (record.job.created, record.job.id))
        self._records = {record.job.id: record for record in records}
        self._latest = records[-1].job.created if records else 0.0
        for record in sorted(records, key=lambda record: record.job.status != "running"):
            if record.job.status in FINAL:
                continue
            if record.starts >= MAX_STARTS:
                why = f"the process that worked on this take was killed {record.starts} times; it is not tried again"
                self._end(record, "failed", error=error_data(JobCrashedError(why)))
                continue
            if record.job.kind not in self._runners:
                why = f"this deployment does not work on jobs of the kind {record.job.kind!r}"
                self._end(record, "failed", error=error_data(SettingsError(why, stage="jobs")))
                continue
            record.change(status="queued", started=None, progress=JobProgress())
            self._queue.push(record.job.id, _lane(record.job))
        self._pump()
        self._sweeping = asyncio.get_running_loop().create_task(self._sweep())

    async def close(self, seconds: float = 5.0) -> None:
        """Stop; jobs that run go back to those that wait, for the next process. Later calls give QueueFullError."""
        self._closing = True
        tasks = [record.task for record in self._running if record.task]
        tasks += [self._sweeping] if self._sweeping else []
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=seconds)
        await self._ledger.close(seconds)

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
        if kind not in self._runners:
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
        written = asyncio.Event()
        self._creating.update(dict.fromkeys(new, written))
        try:
            await self._ledger.create(states)
            for record in records:
                self._records[record.job.id] = record
                self._queue.push(record.job.id, _lane(record.job))
        finally:
            for id in new:
                del self._creating[id]
            written.set()
        self._pump()
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
            self._cancel(record)
            self._wake_waiting()
            await self._settled([record])
        return self._view(record)

    async def remove(self, id: str) -> None:
        """See ``protocol.Jobs``."""
        record = self._find(id)
        if record.job.status not in FINAL:
            raise SettingsError("the job still waits or runs; cancel it first", stage="jobs")
        del self._records[id]
        await self._keeper.remove([record.job])

    async def purge(self, kind: str, group: str | None = None) -> int:
        """See ``protocol.Jobs``."""
        waiting = [
            record
            for record in self._records.values()
            if record.job.status == "queued" and record.job.kind == kind and group in (None, record.job.group)
        ]
        for record in waiting:
            self._cancel(record)
        self._wake_waiting()
        await self._settled(waiting)
        return len(waiting)

    async def counts(self, kind: str | None = None, group: str | None = None) -> dict[str, int]:
        """How many jobs there are of each status."""
        counts = dict.fromkeys(("queued", "running", "done", "failed", "cancelled"), 0)
        for record in self._records.values():
            if kind in (None, record.job.kind) and group in (None, record.job.group):
                counts[record.job.status] += 1
        return counts

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
        position = self._queue.position(record.job.id)
        return record.job if position is None else replace(record.job, queue_position=position)

    def _check_room(self, count: int) -> None:
        """Raises QueueFullError."""
        taken = len(self._queue) + len(self._running) + len(self._creating)
        if not self._closing and taken + count <= self.limits.jobs:
            return
        wait = min(60.0, max(1.0, self._typical * count / self.limits.running_jobs))
        room = max(0, self.limits.jobs - taken)
        what = "the service is stopping" if self._closing else f"{taken} jobs wait or run, there is room for {room}"
        raise QueueFullError(f"{what}; try again later", retry_after=wait)

    def _new(self, id: str, kind: str, payload: dict[str, Any], group: str | None, owner: str | None) -> Job:
        self._latest = max(time.time(), self._latest + 1e-5)  # no two alike: the order of jobs is that of their times
        return Job(id, kind, "queued", payload, self._latest, group=group, owner=owner)

    def _pump(self) -> None:
        """Start what may run. A job at its last try runs alone, so that it takes no other down with it."""
        moved = False
        while not self._closing and (id := self._queue.peek()) is not None:
            record = self._records[id]
            alone = record.starts == MAX_STARTS - 1 or any(other.starts == MAX_STARTS for other in self._running)
            if len(self._running) >= (1 if alone else self.limits.running_jobs):
                break
            self._queue.pop()
            record.starts += 1
            record.change(status="running", started=time.time())
            self._running.add(record)
            record.task = asyncio.get_running_loop().create_task(self._work(record))
            record.task.add_done_callback(partial(self._stopped, record))
            moved = True
        if moved:
            self._wake_waiting()

    def _wake_waiting(self) -> None:
        for record in self._records.values():
            if record.watchers and record.job.status == "queued":
                record.wake()

    async def _work(self, record: Record) -> None:
        """One job from its start to its end."""
        id, began = record.job.id, time.monotonic()
        try:
            self._ledger.save(id, record.to_bytes())
            await self._ledger.settled(id)
            result = await self._run(record)
            self._end(record, "done", result=result)
            self._typical += 0.3 * (time.monotonic() - began - self._typical)
        except CancelledError:
            self._end(record, "cancelled")
        except RocktopError as error:
            self._end(record, "failed", error=error_data(error))
        except Exception as error:  # noqa: BLE001 - a fault of ours must end this job, not the board
            where = "".join(traceback.format_tb(error.__traceback__))  # without its text, which may hold addresses
            _log.error("job %s failed by an unexpected %s\n%s", id, type(error).__name__, where)
            self._end(record, "failed", error=error_data(RocktopError("an unexpected error; see the service's log")))

    def _stopped(self, record: Record, task: asyncio.Task[None]) -> None:
        """Work on a job has ended, in whatever way, perhaps before it began."""
        self._running.discard(record)
        record.task = None
        if record.job.status == "running" and self._closing:
            record.starts -= 1
            record.change(status="queued", started=None, progress=JobProgress())
            self._ledger.save(record.job.id, record.to_bytes())
        elif record.job.status == "running":
            self._end(record, "failed", error=error_data(RocktopError("the work was broken off", retryable=True)))
        self._pump()

    async def _run(self, record: Record) -> dict[str, Any]:
        """The runner's result; what the store or a stage refuses for the time being is tried again."""
        give_up, pause = time.monotonic() + self._patience, 0.5

        def tell(progress: JobProgress) -> None:
            if record.job.status == "running":
                record.change(progress=progress)

        while True:
            try:
                return await self._runners[record.job.kind](record.job, tell)
            except FetchError:
                raise
            except RocktopError as error:
                if not error.retryable or time.monotonic() + pause > give_up:
                    raise
                _log.warning("job %s is tried again in %.1f s: %s", record.job.id, pause, error.code)
            await asyncio.sleep(pause)
            pause = min(2 * pause, 15.0)
            tell(JobProgress())

    def _cancel(self, record: Record) -> None:
        if record.job.status == "queued":
            self._queue.remove(record.job.id)
        self._end(record, "cancelled")
        if record.task is not None:
            record.task.cancel()

    def _end(self, record: Record, status: Status, **outcome: Any) -> None:
        """Make a job final, unless it is, and have the store told. Raises ValueError, TypeError if it is not JSON."""
        if record.job.status in FINAL:
            return
        ended = replace(record.job, **outcome, status=status, finished=time.time())
        data = Record(ended, record.starts).to_bytes()
        record.change(**outcome, status=status, finished=ended.finished)
        self._ledger.save(ended.id, data)

    async def _sweep(self) -> None:
        while True:
            try:
                old, orphans = await self._keeper.plan([record.job for record in self._records.values()])
                for job in old:
                    self._records.pop(job.id, None)
                await self._keeper.remove(old, orphans)
            except RocktopError as error:
                _log.warning("old jobs could not be removed: %s", error.code)
            await asyncio.sleep(self._sweep_seconds)


def _lane(job: Job) -> Hashable:
    """Who takes turns: owners; where there are none, batches."""
    return (job.owner, None) if job.owner is not None else (None, job.group)


def _state(record: Record) -> bytes:
    try:
        return record.to_bytes()
    except (TypeError, ValueError) as error:
        raise SettingsError(f"a job's payload must be JSON data: {error}", stage="jobs") from error


async def _within(event: asyncio.Event, seconds: float) -> None:
    """Wait for an event, or that long."""
    with suppress(TimeoutError):
        await asyncio.wait_for(event.wait(), seconds)
