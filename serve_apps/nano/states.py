"""Jobs in the words of RunPod's serverless API: what a request may hold, and how a job's state is told."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from rocktop_ray.errors import JobTimedOutError
from serve_apps.jobs.protocol import Job, Status
from serve_apps.requests import FieldsError

KIND = "nano"
TIMED_OUT = JobTimedOutError.code
DEFAULT_TTL = 24 * 3600.0
"""Seconds from its submission after which a job is given up."""
_MOST = 7 * 86_400_000
_WORDS: dict[Status, str] = {
    "queued": "IN_QUEUE",
    "running": "IN_PROGRESS",
    "done": "COMPLETED",
    "failed": "FAILED",
    "cancelled": "CANCELLED",
}
_KNOWN = ("input", "webhook", "policy")
_POLICY = ("executionTimeout", "ttl", "lowPriority")


@dataclass(frozen=True)
class JobRequest:
    """The body of ``/run`` and ``/runsync``. Its ``input`` is the worker's business, as on RunPod."""

    input: Any
    webhook: str | None = None
    execution_seconds: float | None = None
    """Longest work, from its start."""
    ttl_seconds: float = DEFAULT_TTL

    @classmethod
    def read(cls, body: Mapping[str, Any]) -> JobRequest:
        """Checked. Raises FieldsError on what is missing, wrong, or cannot be honoured here."""
        problems: list[dict[str, str]] = []

        def wrong(field: str, message: str) -> None:
            problems.append({"field": field, "message": message})

        if "input" not in body:
            wrong("input", 'missing: send {"input": {...}}')
        for name in body:
            if name == "s3Config":
                wrong(name, "not honoured here: the service uploads where its S3_* variables say")
            elif name not in _KNOWN:
                wrong(str(name)[:64], f"unknown; known are {', '.join(_KNOWN)}")
        webhook = body.get("webhook")
        if webhook is not None and not isinstance(webhook, str):
            wrong("webhook", "should be the http(s) address that is told when the job ends")
        policy = body.get("policy")
        if policy is not None and not isinstance(policy, Mapping):
            wrong("policy", f"should be an object with {', '.join(_POLICY)}")
        policy = policy if isinstance(policy, Mapping) else {}
        for name in policy:
            if name not in _POLICY:
                wrong(f"policy.{str(name)[:48]}", f"unknown; known are {', '.join(_POLICY)}")
        if not isinstance(policy.get("lowPriority", False), bool):
            wrong("policy.lowPriority", "should be true or false")
        times: dict[str, float | None] = {}
        for name, least in (("executionTimeout", 5000), ("ttl", 10_000)):
            value = policy.get(name)
            if value is None:
                times[name] = None
            elif isinstance(value, bool) or not isinstance(value, int | float) or not least <= value <= _MOST:
                wrong(f"policy.{name}", f"should be milliseconds, {least} to {_MOST}")
            else:
                times[name] = value / 1000
        if problems:
            raise FieldsError(problems)
        return cls(body["input"], webhook or None, times["executionTimeout"], times["ttl"] or DEFAULT_TTL)

    def payload(self, request_id: str) -> dict[str, Any]:
        """What the job is given."""
        return {
            "input": self.input,
            "request_id": request_id,
            "webhook": self.webhook,
            "execution_seconds": self.execution_seconds,
            "ttl_seconds": self.ttl_seconds,
        }


def word(job: Job) -> str:
    """The status of a job. One that was cancelled in the queue because its time was over has TIMED_OUT."""
    if job.status == "failed" and (job.error or {}).get("code") == TIMED_OUT:
        return "TIMED_OUT"
    if job.status == "cancelled" and job.started is None and expired(job, job.finished or job.created):
        return "TIMED_OUT"
    return _WORDS[job.status]


def expired(job: Job, now: float) -> bool:
    """Whether a job's time to live is over."""
    ttl: float = job.payload["ttl_seconds"]
    return now >= job.created + ttl


def state(job: Job, output: Any = None) -> dict[str, Any]:
    """A job as ``/status`` tells it; times in milliseconds. What does not apply is left out.

    output: the worker's reply, of a job that is done.
    """
    status = word(job)
    told: dict[str, Any] = {"id": job.id, "status": status}
    if job.started is not None:
        told["delayTime"] = _milliseconds(job.started - job.created)
        if job.finished is not None:
            told["executionTime"] = _milliseconds(job.finished - job.started)
    if output is not None:
        told["output"] = output
    if status == "FAILED":
        told["error"] = str((job.error or {}).get("message", "the job failed"))
    if status == "TIMED_OUT":
        told["error"] = "the job was not done in the time that its policy gives"
    return told


def _milliseconds(seconds: float) -> int:
    return max(0, round(1000 * seconds))
