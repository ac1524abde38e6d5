"""A job's changes as server-sent events (WHATWG HTML, section 9.2)."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing

from rocktop_ray.errors import JobNotFoundError
from serve_apps.gateway.job_objects import JobObject
from serve_apps.jobs.protocol import FINAL, Job
from serve_apps.jobs.ticking import ticking

HEARTBEAT = 10.0
"""Seconds of silence after which a comment is sent, so that proxies and clients know that the stream lives."""


async def events(
    first: Job, changes: AsyncGenerator[Job, None], show: Callable[[Job], JobObject], heartbeat: float = HEARTBEAT
) -> AsyncGenerator[bytes, None]:
    """``progress`` events, then ``done``, ``failed`` or ``cancelled``. Closes ``changes`` however it ends.

    A job that is removed meanwhile ends the stream without a final event.
    """
    try:
        yield b"retry: 2000\n\n" + _event(first, show)
        if first.status in FINAL:
            return
        async with aclosing(ticking(changes, heartbeat)) as ticks:
            async for job in ticks:
                if job is None:
                    yield b": still here\n\n"
                elif job != first:
                    yield _event(job, show)
    except JobNotFoundError:
        return
    finally:
        await changes.aclose()


def _event(job: Job, show: Callable[[Job], JobObject]) -> bytes:
    kind = job.status if job.status in FINAL else "progress"
    return f"event: {kind}\ndata: {show(job).model_dump_json()}\n\n".encode()
