"""Jobs and batches as clients see them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from pydantic import BaseModel, Field

from serve_apps.gateway.problems import Veil, title
from serve_apps.jobs.protocol import FINAL, Job, Status


class ProgressObject(BaseModel):
    """How far a job is."""

    seconds_done: float = Field(description="Seconds of the take that are converted.")
    seconds_total: float | None = Field(description="Length of the take; null while it is not known.")
    stage: str | None = Field(description="The stage that ended last.")
    fraction: float | None = Field(description="0 to 1; null while it is not known.")
    queue_position: int | None = Field(description="How many jobs start before this one; null when it does not wait.")


class ResultObject(BaseModel):
    """What came of a job."""

    url: str
    seconds: float
    bytes: int
    media_type: str
    key: float | None = Field(description="Semitones between take and result.")
    gain_db: float | None
    peak_dbfs: float | None = Field(description="Null for silence.")
    real_time_factor: float | None = Field(description="Seconds of work per second of the take.")
    stages: dict[str, float | None] = Field(description="Seconds of work per stage.")
    pitch: str | None = Field(description="The pitch extractor; null for a voice without F0.")
    voice: dict[str, Any]


class OutputObject(BaseModel):
    """The format of the result."""

    format: str
    rate: int
    bitrate: int | None


class JobObject(BaseModel):
    """A conversion that goes on without its client. Times are ISO 8601 in UTC."""

    id: str
    status: Status
    voice: str
    name: str = Field(description="What the client calls the take.")
    created: str
    started: str | None
    finished: str | None
    settings: dict[str, Any] = Field(description="Every setting of the engine, defaults filled in.")
    output: OutputObject
    progress: ProgressObject
    error: dict[str, Any] | None = Field(description="A problem (RFC 9457), of a failed job.")
    batch: str | None = Field(description="Id of the batch that it belongs to.")
    result: ResultObject | None
    links: dict[str, str]


class JobPage(BaseModel):
    """Jobs, newest first."""

    jobs: list[JobObject]
    next: str | None = Field(description="Give this as `after` for the next page; null at the end.")


class BatchObject(BaseModel):
    """Jobs that were sent together, in the order of their takes."""

    id: str
    jobs: list[JobObject]
    counts: dict[Status, int]
    links: dict[str, str]


class MelodyObject(BaseModel):
    """Melodies in Hz, 0 = unvoiced; empty for a voice without F0."""

    rate: int = Field(description="Values per second.")
    source: list[float]
    result: list[float]


def job_object(job: Job, veil: Veil) -> JobObject:
    """A job of the kind ``convert`` as clients see it."""
    order, home = job.payload["order"], f"/v1/jobs/{job.id}"
    return JobObject(
        id=job.id,
        status=job.status,
        voice=order["voice"]["name"],
        name=job.payload["name"],
        created=_iso(job.created) or "",
        started=_iso(job.started),
        finished=_iso(job.finished),
        settings=order["settings"],
        output=OutputObject(**order["output"]),
        progress=_progress(job),
        error=_problem(job, veil),
        batch=job.group,
        result=_result(job, f"{home}/result"),
        links={"self": home, **{name: f"{home}/{name}" for name in ("events", "result", "source", "melody")}},
    )


def batch_object(id: str, jobs: Sequence[Job], veil: Veil) -> BatchObject:
    """A batch as clients see it; ``jobs`` in the order of their takes."""
    counts = Counter(job.status for job in jobs)
    statuses: tuple[Status, ...] = ("queued", "running", "done", "failed", "cancelled")
    home = f"/v1/batches/{id}"
    return BatchObject(
        id=id,
        jobs=[job_object(job, veil) for job in jobs],
        counts={status: counts[status] for status in statuses},
        links={"self": home, "archive": f"{home}/archive"},
    )


def _progress(job: Job) -> ProgressObject:
    done, total = job.progress.seconds_done, job.progress.seconds_total
    fraction = min(1.0, done / total) if total else None
    if job.status == "done":
        fraction = 1.0
    elif job.status == "queued":
        fraction = 0.0
    return ProgressObject(
        seconds_done=done,
        seconds_total=total,
        stage=None if job.status in FINAL else job.progress.stage,
        fraction=fraction,
        queue_position=job.queue_position,
    )


def _problem(job: Job, veil: Veil) -> dict[str, Any] | None:
    if job.error is None:
        return None
    return {
        "type": "about:blank",
        "title": title(job.error["status"]),
        "status": job.error["status"],
        "detail": veil.hide(job.error["message"], {job.payload["order"]["source"]: job.payload["name"]}),
        "code": job.error["code"],
        "stage": job.error["stage"],
        "retryable": job.error["retryable"],
        "request_id": job.id,
    }


def _result(job: Job, url: str) -> ResultObject | None:
    if job.result is None:
        return None
    known: dict[str, Any] = {name: job.result.get(name) for name in ResultObject.model_fields if name != "url"}
    return ResultObject(url=url, **known)


def _iso(seconds: float | None) -> str | None:
    if seconds is None:
        return None
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
