"""What a job is, and what may be asked of whoever keeps them."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

Status = Literal["queued", "running", "done", "failed", "cancelled"]
FINAL: frozenset[Status] = frozenset({"done", "failed", "cancelled"})


@dataclass(frozen=True)
class JobProgress:
    """How far a running job is."""

    seconds_done: float = 0.0
    seconds_total: float | None = None
    stage: str | None = None


@dataclass(frozen=True)
class Job:
    """The state of one job, as plain data. Times are seconds since 1970 UTC."""

    id: str
    kind: str
    """Which runner works on it: ``convert`` or ``nano``."""
    status: Status
    payload: dict[str, Any] = field(repr=False)
    """What the runner was given; plain JSON data, may hold signed addresses: never logged."""
    created: float
    started: float | None = None
    finished: float | None = None
    progress: JobProgress = JobProgress()
    queue_position: int | None = None
    """0 is next; None when not waiting."""
    result: dict[str, Any] | None = None
    error: dict[str, Any] | None = None
    """``RocktopError.as_dict()`` plus ``status``, of a failed job."""
    group: str | None = None
    """Batch, or RunPod endpoint, that it belongs to."""
    owner: str | None = None
    """Name of the API key that made it; others do not see it. None where keys are off."""


class Runner(Protocol):
    """Does the work of one kind of job."""

    async def __call__(self, job: Job, tell: Callable[[JobProgress], None]) -> dict[str, Any]:
        """The result as JSON data. Raises RocktopError; cancelling the task stops the work. Must be repeatable.

        ``tell`` is called from the event loop's thread. Retryable errors of store and stages are tried again by the
        board, with pauses; a runner need not.
        """
        ...


class Jobs(Protocol):
    """Where jobs are kept: ``board.JobBoard`` itself, or a handle to the replica that holds it."""

    async def submit(
        self,
        kind: str,
        payload: dict[str, Any],
        *,
        group: str | None = None,
        owner: str | None = None,
        id: str | None = None,
    ) -> Job:
        """Queue a job. An ``id`` that there is already gives that job, so the call can be repeated.

        Its files in the spool are those named ``takes/<id>...`` and ``results/<id>...`` and the keys that the payload
        lists under ``files``; they are removed with it. Raises QueueFullError (429), SettingsError, StorageError.
        """
        ...

    async def submit_all(
        self,
        kind: str,
        payloads: Sequence[dict[str, Any]],
        *,
        group: str | None = None,
        owner: str | None = None,
        ids: Sequence[str] | None = None,
    ) -> Sequence[Job]:
        """Queue many jobs, or none of them. Raises as ``submit``."""
        ...

    async def get(self, id: str) -> Job:
        """Raises JobNotFoundError (404)."""
        ...

    async def list(
        self,
        *,
        kind: str | None = None,
        group: str | None = None,
        owner: str | None = None,
        limit: int = 50,
        after: str | None = None,
    ) -> Sequence[Job]:
        """Newest first, from behind the job ``after``. Raises JobNotFoundError if that is gone."""
        ...

    def watch(self, id: str) -> AsyncGenerator[Job, None]:
        """Every change (at most ten a second), ending with the final one. Raises JobNotFoundError."""
        ...

    async def wait(self, id: str, seconds: float) -> Job:
        """The job when it is final, or as it is after ``seconds``."""
        ...

    async def cancel(self, id: str) -> Job:
        """Stop a waiting or running job; a final one stays as it is. Raises JobNotFoundError."""
        ...

    async def remove(self, id: str) -> None:
        """Forget a final job with its files. Raises JobNotFoundError; JobStateError if it still waits or runs."""
        ...

    async def purge(self, kind: str, group: str | None = None) -> int:
        """Cancel all that wait; how many."""
        ...

    async def counts(self, kind: str | None = None, group: str | None = None) -> dict[str, int]:
        """How many jobs there are of each status."""
        ...
