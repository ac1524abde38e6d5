"""What is kept, for how long: finished jobs with their takes and results, and files that no job knows of."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

from rocktop_ray.store.storage import Stat
from serve_apps.config import LimitsConfig
from serve_apps.jobs.ledger import Ledger
from serve_apps.jobs.protocol import FINAL, Job
from serve_apps.spool import RESULTS, TAKES, Spool

_LARGE = 64 << 10
"""Bytes from which a job counts as one that fills the memory: such hold whole takes as ``data:`` addresses."""
_FOLDERS = (f"{TAKES}/", f"{RESULTS}/")


class Keeper:
    """Removes what is older than ``keep_hours``, then the oldest until all fits ``keep_bytes``. Only final jobs go."""

    def __init__(self, ledger: Ledger, limits: LimitsConfig, orphan_seconds: float, state_bytes: int) -> None:
        """state_bytes: of large jobs as they were sent, together; the oldest final ones go first."""
        self._ledger, self._limits, self._orphan_seconds = ledger, limits, orphan_seconds
        self._state_bytes = state_bytes
        self._spool = Spool(ledger.store)

    async def plan(self, jobs: Sequence[Job], states: Mapping[str, int]) -> tuple[list[Job], list[str]]:
        """Which of the jobs are to go, and which keys belong to none of them. Raises StorageError.

        states: bytes of each job as it was sent.
        """
        now = time.time()
        files = await self._ledger.call(self._files)
        owners = {key: job.id for job in jobs for key in listed(job)}
        ids = {job.id for job in jobs}
        sizes = dict.fromkeys(ids, 0)
        total, orphans = 0, []
        for found in files:
            owner = owners.get(found.key) or stem(found.key)
            if owner in ids:
                sizes[owner] += found.bytes
            elif found.modified < now - self._orphan_seconds:
                orphans.append(found.key)
                continue
            total += found.bytes
        held = sum(states.values())
        old: list[Job] = []
        for job in sorted((job for job in jobs if job.status in FINAL), key=lambda job: job.finished or job.created):
            expired = (job.finished or job.created) < now - 3600 * self._limits.keep_hours
            heavy = held > self._state_bytes and states[job.id] > _LARGE
            if expired or heavy or (total > self._limits.keep_bytes and sizes[job.id]):
                old.append(job)
                total -= sizes[job.id]
                held -= states[job.id]
        return old, orphans

    async def remove(self, jobs: Sequence[Job], keys: Sequence[str] = ()) -> None:
        """Remove final jobs with their files, and other files. Raises StorageError; the states go all the same."""
        for job in jobs:
            self._ledger.forget(job.id)
        await self._ledger.call(self._delete, jobs, keys)

    def _files(self) -> list[Stat]:
        self._spool.sweep_parts(self._orphan_seconds)
        return [found for folder in _FOLDERS for found in self._spool.store.list(folder)]

    def _delete(self, jobs: Sequence[Job], keys: Sequence[str]) -> None:
        ids = {job.id for job in jobs}
        prefix = jobs[0].id if len(jobs) == 1 else ""  # else one look at all is cheaper
        named = [
            found.key
            for folder in _FOLDERS
            for found in (self._spool.store.list(folder + prefix) if ids else ())
            if stem(found.key) in ids
        ]
        self._spool.remove(*keys, *named, *(key for job in jobs for key in listed(job)))


def stem(key: str) -> str:
    """The job that a key is named after: ``results/ID.melody.npy`` and ``results/ID/x`` belong to ``ID``."""
    return key.split("/")[1].partition(".")[0]


def listed(job: Job) -> list[str]:
    """The spool's keys that a job's payload lists under ``files``."""
    files = job.payload.get("files")
    keys = files if isinstance(files, list) else []
    return [key for key in keys if isinstance(key, str) and key.startswith(_FOLDERS)]
