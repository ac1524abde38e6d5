"""The board of another process, over a handle of Serve: replicas that are replaced cost time, not jobs."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from typing import Any

from rocktop_ray.errors import JobNotFoundError, RocktopError, StageLostError
from serve_apps.ids import uuid7
from serve_apps.jobs.protocol import FINAL, Job
from serve_apps.losses import CAUGHT, as_rocktop, is_lost

ASK_SECONDS = 60.0
"""How long an answer is waited for, over all tries."""
TURN_SECONDS = 4.0
"""Longest single call: a board that is to stop waits for its calls, and must not wait for those who only look on."""

_WHO = "the keeper of the jobs"


@dataclass(frozen=True)
class Refused:
    """An error, sent as data: what Serve sees raised, it logs at length."""

    error: RocktopError


class RemoteJobs:
    """Implements ``protocol.Jobs``. Besides what the board raises: StageLostError where it does not answer."""

    def __init__(self, handle: Any, seconds: float = ASK_SECONDS) -> None:
        """handle: of the deployment of ``deployment.JobsReplica``."""
        self._call = handle.options(method_name="call")
        self._changes = handle.options(method_name="changes", stream=True)
        self._seconds = seconds

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
        id = id or uuid7()  # made here, so that the call can be made again
        job: Job = await self._ask("submit", kind, payload, group=group, owner=owner, id=id)
        return job

    async def submit_all(
        self,
        kind: str,
        payloads: Sequence[dict[str, Any]],
        *,
        group: str | None = None,
        owner: str | None = None,
        ids: Sequence[str] | None = None,
    ) -> Sequence[Job]:
        """See ``protocol.Jobs``."""
        ids = ids if ids is not None else [uuid7() for _ in payloads]
        jobs: Sequence[Job] = await self._ask("submit_all", kind, payloads, group=group, owner=owner, ids=ids)
        return jobs

    async def get(self, id: str) -> Job:
        """See ``protocol.Jobs``."""
        job: Job = await self._ask("get", id)
        return job

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
        jobs: Sequence[Job] = await self._ask("list", kind=kind, group=group, owner=owner, limit=limit, after=after)
        return jobs

    async def watch(self, id: str) -> AsyncGenerator[Job, None]:
        """See ``protocol.Jobs``."""
        told: Job | None = None
        trouble = _Trouble(self._seconds)
        while True:
            stream: Any = None
            try:
                stream = self._changes.remote(id)
                async for answer in stream:
                    job = _opened(answer)
                    trouble = _Trouble(self._seconds)
                    if job != told:
                        told = job
                        yield job
                    if job.status in FINAL:
                        return
                stream = None
                continue
            except CAUGHT as error:
                stream = None
                pause = trouble.pause(error)
            except asyncio.CancelledError as error:
                pause = trouble.pause(_not_ours(error))
            finally:
                if stream is not None:  # whoever looked on has left
                    stream.cancel()
            await asyncio.sleep(pause)

    async def wait(self, id: str, seconds: float) -> Job:
        """See ``protocol.Jobs``."""
        end = asyncio.get_running_loop().time() + seconds
        while True:
            left = max(0.0, end - asyncio.get_running_loop().time())
            job: Job = await self._ask("wait", id, min(left, TURN_SECONDS))
            if job.status in FINAL or left <= TURN_SECONDS:
                return job

    async def cancel(self, id: str) -> Job:
        """See ``protocol.Jobs``."""
        job: Job = await self._ask("cancel", id)
        return job

    async def remove(self, id: str) -> None:
        """See ``protocol.Jobs``."""
        await self._ask("remove", id)

    async def purge(self, kind: str, group: str | None = None) -> int:
        """See ``protocol.Jobs``."""
        count: int = await self._ask("purge", kind, group)
        return count

    async def counts(self, kind: str | None = None, group: str | None = None) -> dict[str, int]:
        """See ``protocol.Jobs``."""
        counts: dict[str, int] = await self._ask("counts", kind, group)
        return counts

    async def _ask(self, method: str, *args: Any, **options: Any) -> Any:
        """What a method of the board returns; asked again where a replica was lost on the way."""
        trouble = _Trouble(self._seconds)
        again = False
        while True:
            try:
                async with asyncio.timeout_at(trouble.end):
                    return _opened(await self._call.remote(method, args, options))
            except TimeoutError as error:
                raise StageLostError(f"{_WHO} does not answer; try again later") from error
            except JobNotFoundError:
                if method == "remove" and again:
                    return None  # the first try removed it, and its answer was lost
                raise
            except CAUGHT as error:
                pause = trouble.pause(error)
            except asyncio.CancelledError as error:
                pause = trouble.pause(_not_ours(error))
            again = True
            await asyncio.sleep(pause)


class _Trouble:
    """Says how long to wait after a replica was lost, and when it is enough."""

    def __init__(self, seconds: float) -> None:
        self.end = asyncio.get_running_loop().time() + seconds
        self._next = 0.1

    def pause(self, error: BaseException) -> float:
        """Seconds to wait. Raises what is not the loss of a replica, and StageLostError in the end."""
        if isinstance(error, Exception) and not is_lost(error):
            raise as_rocktop(error, _WHO) from None
        if asyncio.get_running_loop().time() + self._next > self.end:
            raise StageLostError(f"{_WHO} was lost and did not come back; try again later") from error
        pause, self._next = self._next, min(2 * self._next, 2.0)
        return pause


def _not_ours(error: asyncio.CancelledError) -> asyncio.CancelledError:
    """The error, if not this task was cancelled but the replica that it asked. Raises it else."""
    task = asyncio.current_task()
    if task is None or task.cancelling():
        raise error
    return error


def _opened(answer: Any) -> Any:
    if isinstance(answer, Refused):
        raise answer.error
    return answer
