"""Those who work on jobs: start what may run, try again what was refused for the time being, record how it ended."""

from __future__ import annotations

import asyncio
import logging
import time
import traceback
from collections.abc import Hashable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any, Protocol

from rocktop_ray.errors import BusyError, CancelledError, RocktopError, StageLostError, StorageUnavailableError
from serve_apps.jobs.fair_queue import FairQueue
from serve_apps.jobs.ledger import Ledger
from serve_apps.jobs.protocol import FINAL, Job, JobProgress, Runner, Status
from serve_apps.jobs.records import Record, error_data

MAX_STARTS = 3
"""A job that was running this often when its process was killed is given up."""


class JobMeter(Protocol):
    """Who is told of jobs; ``observe.metrics.Metrics`` is one."""

    def jobs(self, queued: int, running: int) -> None:
        """How many jobs wait and run now."""

    def job_began(self, kind: str, waited: float) -> None:
        """A job that had waited ``waited`` seconds is worked on."""

    def job_finished(self, kind: str, status: str) -> None:
        """A job is final."""


_log = logging.getLogger(__name__)


class Crew:
    """Works on ``places`` jobs at once, in the order of a ``FairQueue``."""

    def __init__(
        self, ledger: Ledger, runners: Mapping[str, Runner], places: int, patience: float, meter: JobMeter | None
    ) -> None:
        self._meter = meter
        self._ledger, self._runners, self._places, self._patience = ledger, dict(runners), places, patience
        self._queue = FairQueue()
        self._waiting: dict[str, Record] = {}
        self._running: set[Record] = set()
        self.closing = False
        self.typical = 5.0
        """Seconds that a job takes, as of late."""

    def __len__(self) -> int:
        """Jobs that wait or run."""
        return len(self._waiting) + len(self._running)

    def knows(self, kind: str) -> bool:
        """Whether there is a runner for such jobs."""
        return kind in self._runners

    def position(self, record: Record) -> int | None:
        """How many are started before this one; None if it does not wait."""
        return self._queue.position(record.job.id)

    def add(self, *records: Record) -> None:
        """Queue jobs, and start what may run."""
        for record in records:
            self._waiting[record.job.id] = record
            self._queue.push(record.job.id, _lane(record.job))
        self._pump()

    def cancel(self, *records: Record) -> None:
        """Make jobs cancelled that are not final; those that run are stopped."""
        for record in records:
            if self._waiting.pop(record.job.id, None):
                self._queue.remove(record.job.id)
            self.end(record, "cancelled")
            if record.task is not None:
                record.task.cancel()
        self._wake_waiting()

    async def stop(self, seconds: float) -> None:
        """Start nothing more; what runs is stopped and waits for the next process."""
        self.closing = True
        tasks = [record.task for record in self._running if record.task]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=seconds)

    def end(self, record: Record, status: Status, **outcome: Any) -> None:
        """Make a job final, unless it is, and have the store told. Raises ValueError, TypeError if it is not JSON."""
        if record.job.status in FINAL:
            return
        ended = replace(record.job, **outcome, status=status, finished=time.time())
        data = Record(ended, record.starts).to_bytes()
        record.change(**outcome, status=status, finished=ended.finished)
        self._ledger.save(ended.id, data)
        if self._meter:
            self._meter.job_finished(ended.kind, status)
            self._count()

    def _count(self) -> None:
        if self._meter:
            self._meter.jobs(len(self._waiting), len(self._running))

    def _pump(self) -> None:
        """Start what may run. A job at its last try runs alone, so that it takes no other down with it."""
        moved = False
        while not self.closing and (id := self._queue.peek()) is not None:
            record = self._waiting[id]
            alone = record.starts == MAX_STARTS - 1 or any(other.starts == MAX_STARTS for other in self._running)
            if len(self._running) >= (1 if alone else self._places):
                break
            self._queue.pop()
            del self._waiting[id]
            record.starts += 1
            record.change(status="running", started=time.time())
            if self._meter:
                self._meter.job_began(record.job.kind, time.time() - record.job.created)
            self._running.add(record)
            record.task = asyncio.get_running_loop().create_task(self._work(record))
            record.task.add_done_callback(partial(self._stopped, record))
            moved = True
        if moved:
            self._wake_waiting()
        self._count()

    def _wake_waiting(self) -> None:
        """Their positions have changed."""
        for record in self._waiting.values():
            record.wake()

    async def _work(self, record: Record) -> None:
        """One job from its start to its end."""
        id, began = record.job.id, time.monotonic()
        try:
            self._ledger.save(id, record.to_bytes())
            await self._ledger.settled(id)
            result = await self._run(record)
            self.end(record, "done", result=result)
            self.typical += 0.3 * (time.monotonic() - began - self.typical)
        except CancelledError:
            self.end(record, "cancelled")
        except RocktopError as error:
            self.end(record, "failed", error=error_data(error))
        except Exception as error:  # noqa: BLE001 - a fault of ours must end this job, not the board
            where = "".join(traceback.format_tb(error.__traceback__))  # without its text, which may hold addresses
            _log.error("job %s failed by an unexpected %s\n%s", id, type(error).__name__, where)
            self.end(record, "failed", error=error_data(RocktopError("an unexpected error; see the service's log")))

    def _stopped(self, record: Record, task: asyncio.Task[None]) -> None:
        """Work on a job has ended, in whatever way, perhaps before it began."""
        self._running.discard(record)
        record.task = None
        if record.job.status == "running" and self.closing:
            record.starts -= 1
            record.change(status="queued", started=None, progress=JobProgress())
            self._ledger.save(record.job.id, record.to_bytes())
        elif record.job.status == "running":
            self.end(record, "failed", error=error_data(RocktopError("the work was broken off", retryable=True)))
        self._pump()

    async def _run(self, record: Record) -> dict[str, Any]:
        """The runner's result; what the store or a stage refuses for the time being is tried again."""
        give_up, pause = time.monotonic() + self._patience, 0.5

        def tell(progress: JobProgress) -> None:
            if record.job.status == "running":
                record.change(progress=progress)

        lost = 0
        while True:
            try:
                return await self._runners[record.job.kind](record.job, tell)
            except (BusyError, StorageUnavailableError, StageLostError) as error:
                lost += isinstance(error, StageLostError)  # perhaps this very take kills them
                if not error.retryable or lost == MAX_STARTS or time.monotonic() + pause > give_up:
                    raise
                _log.warning("job %s is tried again in %.1f s: %s", record.job.id, pause, error.code)
            await asyncio.sleep(pause)
            pause = min(2 * pause, 15.0)
            tell(JobProgress())


def _lane(job: Job) -> Hashable:
    """Who takes turns: owners; where there are none, batches."""
    return (job.owner, None) if job.owner is not None else (None, job.group)
