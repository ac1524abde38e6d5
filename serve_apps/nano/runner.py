"""Works on the board's jobs of RVC-Nano's API."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from typing import Any

from rocktop_ray.errors import JobTimedOutError, RocktopError
from rocktop_ray.store.cache import ContentCache
from serve_apps.config import ServeConfig
from serve_apps.gateway.intake import fetch_policy
from serve_apps.jobs.protocol import FINAL, Job, JobProgress, Jobs
from serve_apps.nano import states
from serve_apps.nano.bucket import ResultBucket
from serve_apps.nano.webhook import Webhooks
from serve_apps.nano.worker import NanoWorker, Outcome, with_audio
from serve_apps.orders import Conversions
from serve_apps.spool import Spool
from serve_apps.voices import VoiceShelf

_WAIT = 600.0
_log = logging.getLogger(__name__)


class NanoRunner:
    """Implements ``jobs.protocol.Runner``. A failed request is a job that is done, as on RunPod: see its reply."""

    def __init__(self, worker: NanoWorker, spool: Spool, jobs: Callable[[], Jobs], webhooks: Webhooks) -> None:
        """jobs: the board that this works for; asked when it exists."""
        self._worker, self._spool, self._jobs, self._webhooks = worker, spool, jobs, webhooks
        self._telling: dict[str, asyncio.Task[None]] = {}

    @classmethod
    def build(
        cls,
        config: ServeConfig,
        conversions: Conversions,
        spool: Spool,
        cache: ContentCache,
        voices: VoiceShelf,
        jobs: Callable[[], Jobs],
    ) -> NanoRunner:
        """The runner of a deployment; S3 is what the environment of this process says."""
        policy = fetch_policy(config.fetch)
        worker = NanoWorker(
            conversions,
            spool,
            cache,
            voices,
            policy,
            bucket=lambda: ResultBucket.from_environment(config.nano.link_seconds),
            max_seconds=config.limits.take_seconds,
        )
        return cls(worker, spool, jobs, Webhooks(policy))

    async def __call__(self, job: Job, tell: Callable[[JobProgress], None]) -> dict[str, Any]:
        """See ``jobs.protocol.Runner``. Raises JobTimedOutError, and what a later try may not meet."""
        if job.payload["webhook"] and job.id not in self._telling:
            task = asyncio.get_running_loop().create_task(self._tell(job))
            self._telling[job.id] = task
            task.add_done_callback(lambda _: self._telling.pop(job.id, None))
        end = job.created + float(job.payload["ttl_seconds"])
        if (seconds := job.payload["execution_seconds"]) is not None:
            end = min(end, (job.started or time.time()) + float(seconds))
        try:
            async with asyncio.timeout(end - time.time()):
                outcome = await self._worker.run(
                    job.payload["input"],
                    job.id,
                    tell,
                    request_id=job.payload["request_id"],
                    received_at=job.created,
                    patient=True,
                )
        except TimeoutError as error:
            raise JobTimedOutError("the job was not done in the time that its policy gives") from error
        return {"reply": outcome.reply, "audio": outcome.audio}

    async def _tell(self, job: Job) -> None:
        """Wait for the job's end, and tell it to the client's webhook."""
        url: str = job.payload["webhook"]
        try:
            while job.status not in FINAL:
                job = await self._jobs().wait(job.id, _WAIT)
            state = await told(job, self._spool)
        except RocktopError as error:
            _log.warning("a webhook has nothing to tell", extra={"job_id": job.id, "code": error.code})
            return
        await self._webhooks.send(url, state)


async def told(job: Job, spool: Spool) -> dict[str, Any]:
    """The state of a job as RunPod tells it, with the reply and its audio where there are."""
    if job.status != "done" or job.result is None:
        return states.state(job)
    outcome = Outcome(job.result["reply"], job.result["audio"])
    return states.state(job, await asyncio.to_thread(with_audio, spool, outcome))
