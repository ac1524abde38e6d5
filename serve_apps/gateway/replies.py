"""Work that stops when its client goes away, and how its results are called."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from contextlib import suppress
from pathlib import PurePath
from typing import Any, TypeVar

from starlette.requests import Request

from rocktop_ray.audio.formats import OutputFormat
from rocktop_ray.errors import CancelledError
from serve_apps.labels import clean_label

_T = TypeVar("_T")


async def until_gone(request: Request, work: Coroutine[Any, Any, _T]) -> _T:
    """What ``work`` gives; it is stopped when the client goes away. The request's body must have been read.

    Raises CancelledError (499) when the client is gone, else what ``work`` raises.
    """
    task = asyncio.create_task(work)
    gone = asyncio.create_task(_gone(request))
    try:
        await asyncio.wait((task, gone), return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise CancelledError("the client went away")
        return task.result()
    finally:
        for one in (task, gone):
            one.cancel()
        with suppress(asyncio.CancelledError):
            await asyncio.wait((task, gone))
        if task.done() and not task.cancelled():
            task.exception()  # seen: what a stopped task still raised is of no interest


def result_name(take: str, voice: str, format: OutputFormat) -> str:
    """``verse.wav``, ``bundle`` -> ``verse.bundle.flac``."""
    stem = PurePath(clean_label(take, "take")).stem or "take"
    return f"{stem}.{voice.rsplit('/', 1)[-1]}{format.suffix}"


async def _gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        continue
