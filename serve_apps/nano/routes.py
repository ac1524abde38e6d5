"""RunPod's serverless API over the board of jobs: the real clients work, with only their base URL changed."""

from __future__ import annotations

import time
from collections import Counter
from typing import Annotated, Any

from fastapi import APIRouter, Path, Query, Request
from fastapi.responses import JSONResponse

from rocktop_ray.errors import JobNotFoundError, RocktopError
from serve_apps.gateway.bodies import read_body
from serve_apps.gateway.intake import fetch_policy
from serve_apps.ids import RequestIds, uuid7
from serve_apps.jobs.protocol import FINAL, Job
from serve_apps.nano import states, torchserve
from serve_apps.nano.runner import told
from serve_apps.nano.states import KIND, JobRequest
from serve_apps.nano.webhook import Webhooks
from serve_apps.requests import parse_object
from serve_apps.services import Services

RUN_BYTES, RUNSYNC_BYTES = 10 << 20, 20 << 20
"""RunPod's own limits of a request's body."""
_MOST_JOBS = 10_000

Endpoint = Annotated[str, Path(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$", description="Name of the endpoint.")]
JobId = Annotated[str, Path(min_length=1, max_length=64, description="The `id` that `run` answered.")]
Wait = Annotated[int | None, Query(ge=1000, le=300_000, description="Milliseconds to wait for the result.")]

_EXAMPLE = {
    "input": {
        "vocal_url": "https://storage.example.com/vocal.wav",
        "model_url": "https://storage.example.com/model.pth",
        "index_url": "https://storage.example.com/model.index",
        "f0_up_key": 0,
        "index_rate": 0.75,
        "tag": "user_123_song_456",
    }
}
_SCHEMA: dict[str, Any] = {
    "type": "object",
    "required": ["input"],
    "additionalProperties": False,
    "properties": {
        "input": {"type": "object", "description": "See docs/runpod.md; checked by the worker."},
        "webhook": {"type": "string", "description": "Told the job's state by POST when it ends."},
        "policy": {
            "type": "object",
            "additionalProperties": False,
            "properties": {
                "executionTimeout": {"type": "number", "minimum": 5000, "description": "Milliseconds of work."},
                "ttl": {"type": "number", "minimum": 10_000, "description": "Milliseconds from submission."},
                "lowPriority": {"type": "boolean"},
            },
        },
    },
    "example": _EXAMPLE,
}
_BODY = {"requestBody": {"required": True, "content": {"application/json": {"schema": _SCHEMA}}}}


class EndpointNotFoundError(RocktopError):
    """No endpoint of that name is served here."""

    code, stage, http_status, exit_code = "endpoint_not_found", "input", 404, 66


def router(services: Services) -> APIRouter:
    """``/v2/{endpoint}/...``, and TorchServe's routes."""
    routes = APIRouter()
    routes.include_router(_runpod(services), prefix="/v2/{endpoint}", tags=["RunPod"])
    routes.include_router(torchserve.router(services))
    return routes


def _runpod(services: Services) -> APIRouter:
    routes = APIRouter()
    jobs, config = services.jobs, services.config.nano
    ids, webhooks = RequestIds(), Webhooks(fetch_policy(services.config.fetch))

    def known(endpoint: str) -> str:
        if config.endpoints is not None and endpoint not in config.endpoints:
            raise EndpointNotFoundError(f"no endpoint is called {endpoint!r} here")
        return endpoint

    async def submit(endpoint: str, request: Request, prefix: str, most: int) -> Job:
        asked = JobRequest.read(parse_object(await read_body(request, most)))
        if asked.webhook is not None:
            webhooks.check(asked.webhook)
        return await jobs.submit(
            KIND, asked.payload(ids.new()), group=known(endpoint), owner=_owner(request), id=prefix + uuid7()
        )

    async def find(endpoint: str, id: str, request: Request) -> Job:
        """A job of this endpoint and caller; one whose time was over before it began is given up."""
        job = await jobs.get(id)
        if job.kind != KIND or job.group != known(endpoint) or _owner(request) not in (None, job.owner):
            raise JobNotFoundError("there is no such job; finished ones are removed after a while")
        if job.status == "queued" and states.expired(job, time.time()):
            job = await jobs.cancel(id)
        return job

    @routes.post("/run", summary="Queue a job", openapi_extra=_BODY)
    async def run(endpoint: Endpoint, request: Request) -> JSONResponse:
        job = await submit(endpoint, request, "", RUN_BYTES)
        return JSONResponse({"id": job.id, "status": "IN_QUEUE"})

    @routes.post("/runsync", summary="Queue a job and wait for it", openapi_extra=_BODY)
    async def runsync(endpoint: Endpoint, request: Request, wait: Wait = None) -> JSONResponse:
        job = await submit(endpoint, request, "sync-", RUNSYNC_BYTES)
        job = await jobs.wait(job.id, config.sync_seconds if wait is None else wait / 1000)
        return JSONResponse(await told(job, services.spool))

    @routes.post("/status/{id}", include_in_schema=False)
    @routes.get("/status/{id}", summary="State and output of a job")
    async def status(endpoint: Endpoint, id: JobId, request: Request) -> JSONResponse:
        return JSONResponse(await told(await find(endpoint, id, request), services.spool))

    @routes.post("/stream/{id}", include_in_schema=False)
    @routes.get("/stream/{id}", summary="Progress of a job that runs")
    async def stream(endpoint: Endpoint, id: JobId, request: Request) -> JSONResponse:
        job = await find(endpoint, id, request)
        chunks = [{"output": _progress(job)}] if job.status == "running" else []
        return JSONResponse({**states.state(job), "stream": chunks})

    @routes.post("/cancel/{id}", summary="Stop a job")
    async def cancel(endpoint: Endpoint, id: JobId, request: Request) -> JSONResponse:
        job = await find(endpoint, id, request)
        if job.status not in FINAL:
            job = await jobs.cancel(id)
        return JSONResponse({"id": job.id, "status": states.word(job)})

    @routes.get("/health", summary="Counts of jobs and workers")
    async def health(endpoint: Endpoint, request: Request) -> JSONResponse:
        found = await jobs.list(kind=KIND, group=known(endpoint), owner=_owner(request), limit=_MOST_JOBS)
        counts = Counter(job.status for job in found)
        most = services.config.limits.running_jobs
        busy = min(counts["running"], most)
        workers = {"idle": most - busy, "initializing": 0, "ready": most, "running": busy}
        return JSONResponse(
            {
                "jobs": {
                    "completed": counts["done"],
                    "failed": counts["failed"],
                    "inProgress": counts["running"],
                    "inQueue": counts["queued"],
                    "retried": 0,
                },
                "workers": {**workers, "throttled": 0, "unhealthy": 0},
            }
        )

    @routes.post("/purge-queue", summary="Cancel all jobs that wait")
    async def purge_queue(endpoint: Endpoint, request: Request) -> JSONResponse:
        removed = await _purge(services, known(endpoint), _owner(request))
        return JSONResponse({"removed": removed, "status": "completed"})

    return routes


async def _purge(services: Services, endpoint: str, owner: str | None) -> int:
    """Cancel what waits: where keys are on, what the caller's own key made."""
    if owner is None:
        return await services.jobs.purge(KIND, endpoint)
    found = await services.jobs.list(kind=KIND, group=endpoint, owner=owner, limit=_MOST_JOBS)
    waiting = [job.id for job in found if job.status == "queued"]
    return sum([(await services.jobs.cancel(id)).status == "cancelled" for id in waiting])


def _owner(request: Request) -> str | None:
    """The name of the caller's key; None where keys are off."""
    owner: str | None = getattr(request.state, "owner", None)
    return owner


def _progress(job: Job) -> dict[str, Any]:
    progress = job.progress
    return {
        "seconds_done": round(progress.seconds_done, 3),
        "seconds_total": progress.seconds_total,
        "stage": progress.stage,
    }
