"""A job's changes as server-sent events (WHATWG HTML, section 9.2)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import suppress

from rocktop_ray.errors import JobNotFoundError
from serve_apps.gateway.job_objects import JobObject
from serve_apps.jobs.protocol import FINAL, Job

HEARTBEAT = 10.0
"""Seconds of silence after which a comment is sent, so that proxies and clients know that the stream lives."""


async def events(
    first: Job, changes: AsyncGenerator[Job, None], show: Callable[[Job], JobObject], heartbeat: float = HEARTBEAT
) -> AsyncGenerator[bytes, None]:
    """``progress`` events, then ``done``, ``failed`` or ``cancelled``. Closes ``changes`` however it ends.

    A job that is removed meanwhile ends the stream without a final event.
    """
    coming: asyncio.Task[Job] | None = None
    try:
        yield b"retry: 2000\n\n" + _event(first, show)
        if first.status in FINAL:
            return
        while True:
            coming = coming or asyncio.ensure_future(anext(changes))
            await asyncio.wait([coming], timeout=heartbeat)
            if not coming.done():
                yield b": still here\n\n"
                continue
            job, coming = coming.result(), None
            if job != first:
                yield _event(job, show)
            if job.status in FINAL:
                return
    except (JobNotFoundError, StopAsyncIteration):
        return
    finally:
        if coming is not None:
            coming.cancel()
            with suppress(asyncio.CancelledError, JobNotFoundError, StopAsyncIteration):
                await coming
        await changes.aclose()


def _event(job: Job, show: Callable[[Job], JobObject]) -> bytes:
    kind = job.status if job.status in FINAL else "progress"
    return f"event: {kind}\ndata: {show(job).model_dump_json()}\n\n".encode()
