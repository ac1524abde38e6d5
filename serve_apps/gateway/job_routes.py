"""Jobs and batches over HTTP: send, follow, fetch, remove."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response
from starlette.concurrency import run_in_threadpool

from rocktop_ray.audio.formats import FORMATS
from rocktop_ray.errors import JobNotFoundError, JobStateError, ObjectMissingError
from rocktop_ray.protocols import FRAME_RATE
from serve_apps.gateway.archive import Member, safe_names, zipped
from serve_apps.gateway.events import events
from serve_apps.gateway.intake import Received, Take, discard, fetch_take, received
from serve_apps.gateway.job_objects import BatchObject, JobObject, JobPage, MelodyObject, batch_object, job_object
from serve_apps.gateway.media import take_type
from serve_apps.gateway.objects import disposition, object_answer
from serve_apps.gateway.problems import Veil
from serve_apps.gateway.replies import result_name
from serve_apps.gateway.streams import ClosingStream, in_threads
from serve_apps.ids import uuid7
from serve_apps.jobs.convert_runner import KIND, payload
from serve_apps.jobs.melody import melody_data
from serve_apps.jobs.protocol import FINAL, Job
from serve_apps.labels import url_label
from serve_apps.requests import FieldsError
from serve_apps.services import Services

_PAGE = 200
_MELODY_BYTES = 64 << 20
_STREAM = {"X-Accel-Buffering": "no", "Cache-Control": "no-store"}


def owner_of(request: Request) -> str | None:
    """Name of the API key; None where keys are off."""
    owner: str | None = getattr(request.state, "owner", None)
    return owner


async def own_job(services: Services, id: str, owner: str | None) -> Job:
    """A conversion that this client may see. Raises JobNotFoundError, also where it is another's."""
    job = await services.jobs.get(id)
    if job.kind != KIND or (owner is not None and job.owner != owner):
        raise JobNotFoundError("there is no such job; finished ones are removed after a while")
    return job


async def own_batch(services: Services, id: str, owner: str | None) -> list[Job]:
    """Its jobs in the order of their takes. Raises JobNotFoundError."""
    most = services.config.limits.batch_takes
    jobs = await services.jobs.list(kind=KIND, group=id, owner=owner, limit=most)
    if not jobs:
        raise JobNotFoundError("there is no such batch; finished ones are removed after a while")
    return list(reversed(jobs))


async def submit_received(
    services: Services, got: Received, owner: str | None, *, batch: str | None = None
) -> Sequence[Job]:
    """Queue the takes of a request, all of them or none; they stay in the spool, for the jobs.

    Raises VoiceNotFoundError, SettingsError, QueueFullError, FetchError, StorageError.
    """
    if got.fields.stream:
        raise FieldsError.one("stream", "a job's result is fetched when it is done: leave stream out")
    fetched: list[Take] = []
    try:
        takes = [(take.key, take.name, None) for take in got.takes] or await _addresses(services, got, fetched)
        ref = await run_in_threadpool(services.voices.refer, got.fields.voice)
        info = await run_in_threadpool(services.voices.info, got.fields.voice)
        ids = [uuid7() for _ in takes]
        payloads = []
        for id, (source, name, url) in zip(ids, takes, strict=True):
            order = got.fields.order(
                request_id=id,
                voice=ref,
                info=info,
                source=source,
                max_seconds=services.config.limits.take_seconds,
            )
            payloads.append(payload(id, order, name, url))
        jobs = await services.jobs.submit_all(KIND, payloads, group=batch, owner=owner, ids=ids)
    except BaseException:
        await discard(services.spool, [take.key for take in fetched])
        raise
    got.keep()
    return jobs


def router(services: Services) -> APIRouter:
    """``/v1/jobs`` and ``/v1/batches``."""
    routes = APIRouter(prefix="/v1", tags=["jobs"])
    veil = Veil(services.config)

    def show(job: Job) -> JobObject:
        return job_object(job, veil)

    @routes.post("/jobs", status_code=202, summary="Queue a conversion")
    async def submit(request: Request, response: Response) -> JobObject:
        async with received(request, services) as got:
            (job,) = await submit_received(services, got, owner_of(request))
        response.headers["Location"] = f"/v1/jobs/{job.id}"
        return show(job)

    @routes.get("/jobs", summary="List jobs, newest first")
    async def page(
        request: Request, limit: Annotated[int, Query(ge=1, le=_PAGE)] = 50, after: str | None = None
    ) -> JobPage:
        owner = owner_of(request)
        if after is not None:
            await own_job(services, after, owner)
        found = list(await services.jobs.list(kind=KIND, owner=owner, limit=limit + 1, after=after))
        more = len(found) > limit
        return JobPage(jobs=[show(job) for job in found[:limit]], next=found[limit - 1].id if more else None)

    @routes.get("/jobs/{id}", summary="State of a job")
    async def get(request: Request, id: str) -> JobObject:
        return show(await own_job(services, id, owner_of(request)))

    @routes.delete("/jobs/{id}", summary="Cancel a job, or remove a finished one with its take and result")
    async def delete(request: Request, id: str) -> JobObject:
        job = await own_job(services, id, owner_of(request))
        if job.status in FINAL:
            await services.jobs.remove(id)
        else:
            job = await services.jobs.cancel(id)
        return show(job)

    @routes.get(
        "/jobs/{id}/events",
        summary="Follow a job (server-sent events)",
        response_class=Response,
        responses={200: {"content": {"text/event-stream": {}}, "description": "`progress`, then the final state."}},
    )
    async def follow(request: Request, id: str) -> Response:
        job = await own_job(services, id, owner_of(request))
        body = events(job, services.jobs.watch(id), show)
        return ClosingStream(body, media_type="text/event-stream", headers=_STREAM)

    async def result(request: Request, id: str) -> Response:
        job = _done(await own_job(services, id, owner_of(request)))
        (name,) = safe_names(*_names([job]))
        return await object_answer(request, services.spool, _result(job, "target"), _result(job, "media_type"), name)

    async def source(request: Request, id: str) -> Response:
        job = await own_job(services, id, owner_of(request))
        key, name = job.payload["order"]["source"], job.payload["name"]
        try:
            kind = await run_in_threadpool(take_type, services.spool, key, name)
        except ObjectMissingError:
            raise JobStateError("the take is not here: its address was not fetched (yet)", retryable=True) from None
        return await object_answer(request, services.spool, key, kind, name)

    for part, endpoint, what in (
        ("result", result, "The converted take"),
        ("source", source, "The take as it was sent"),
    ):
        path = f"/jobs/{{id}}/{part}"
        kinds: dict[int | str, dict[str, Any]] = {
            status: {"content": {"audio/*": {"schema": {"type": "string", "format": "binary"}}}, "description": said}
            for status, said in ((200, what), (206, "The part that `Range` asks for"))
        }
        routes.add_api_route(
            path, endpoint, methods=["GET"], summary=what, response_class=Response, responses=kinds, name=part
        )
        routes.add_api_route(path, endpoint, methods=["HEAD"], include_in_schema=False)

    @routes.get("/jobs/{id}/melody", summary="Melodies of take and result")
    async def melody(request: Request, id: str) -> MelodyObject:
        job = _done(await own_job(services, id, owner_of(request)))
        key = (job.result or {}).get("melody")
        if key is None:
            return MelodyObject(rate=FRAME_RATE, source=[], result=[])
        return MelodyObject(**await run_in_threadpool(_read_melody, services, key))

    @routes.post("/batches", status_code=202, summary="Queue many takes with the same settings")
    async def submit_batch(request: Request, response: Response) -> BatchObject:
        id = uuid7()
        async with received(request, services, batch=True) as got:
            jobs = await submit_received(services, got, owner_of(request), batch=id)
        response.headers["Location"] = f"/v1/batches/{id}"
        return batch_object(id, jobs, veil)

    @routes.get("/batches/{id}", summary="State of a batch")
    async def get_batch(request: Request, id: str) -> BatchObject:
        return batch_object(id, await own_batch(services, id, owner_of(request)), veil)

    @routes.delete("/batches/{id}", summary="Cancel what waits or runs of a batch")
    async def cancel_batch(request: Request, id: str) -> BatchObject:
        jobs = await own_batch(services, id, owner_of(request))
        going = [job.id for job in reversed(jobs) if job.status not in FINAL]  # the last ones first: fewer start now
        await asyncio.gather(*map(services.jobs.cancel, going))
        return batch_object(id, await own_batch(services, id, owner_of(request)), veil)

    @routes.get(
        "/batches/{id}/archive",
        summary="The finished results of a batch as one zip file",
        response_class=Response,
        responses={200: {"content": {"application/zip": {}}, "description": "What is finished now."}},
    )
    async def archive(request: Request, id: str) -> Response:
        done = [job for job in await own_batch(services, id, owner_of(request)) if job.status == "done"]
        if not done:
            raise JobStateError("no job of this batch is finished yet", retryable=True)
        names = safe_names(*_names(done))
        members = [
            Member(_result(job, "target"), name, job.finished or 0.0) for job, name in zip(done, names, strict=True)
        ]
        headers = {**_STREAM, "Content-Disposition": disposition(f"batch-{id}.zip")}
        return ClosingStream(in_threads(zipped(services.spool, members)), media_type="application/zip", headers=headers)

    return routes


async def _addresses(services: Services, got: Received, fetched: list[Take]) -> list[tuple[str, str, str | None]]:
    """Key, name and address of each take; those inside ``data:`` addresses are brought into the spool at once."""
    urls = got.fields.take_urls or [got.fields.take_url or ""]
    takes: list[tuple[str, str, str | None]] = []
    for url in urls:
        if url[:5].lower() == "data:":
            fetched.append(await fetch_take(services, url))
            takes.append((fetched[-1].key, fetched[-1].name, None))
        else:
            takes.append(("", url_label(url, "take"), url))
    return takes


def _done(job: Job) -> Job:
    """Raises JobStateError if it has no result."""
    if job.status != "done":
        waits = job.status not in FINAL
        raise JobStateError(f"the job is {job.status}, it has no result{' yet' if waits else ''}", retryable=waits)
    return job


def _result(job: Job, field: str) -> str:
    return str((job.result or {})[field])


def _names(jobs: Sequence[Job]) -> tuple[list[str], list[str]]:
    """What the results are called, and their endings."""
    orders = [job.payload["order"] for job in jobs]
    formats = [FORMATS[order["output"]["format"]] for order in orders]
    names = [
        result_name(job.payload["name"], order["voice"]["name"], format)
        for job, order, format in zip(jobs, orders, formats, strict=True)
    ]
    return names, [format.suffix for format in formats]


def _read_melody(services: Services, key: str) -> dict[str, Any]:
    return melody_data(services.spool.store.read(key, limit=_MELODY_BYTES))
