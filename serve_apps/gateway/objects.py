"""Objects of the spool as answers: whole, in part, or not at all where the client has them (RFC 9110)."""

from __future__ import annotations

import re
from urllib.parse import quote

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response

from rocktop_ray.store.storage import Stat
from serve_apps.gateway.refusals import RangeError
from serve_apps.gateway.streams import ClosingStream, in_threads
from serve_apps.spool import Spool

_RANGE = re.compile(r"bytes=(\d*)-(\d*)")
_DIGITS = 19
"""More than any size has."""


async def object_answer(request: Request, spool: Spool, key: str, media_type: str, name: str) -> Response:
    """The object, for GET and HEAD: ``Range`` (one range), ``If-Range``, ``If-None-Match``, ``ETag``.

    ``name`` is proposed for saving it. Several ranges at once are answered with the whole, as the RFC allows.
    Raises RangeError (416), ObjectMissingError, StorageError.
    """
    found = await run_in_threadpool(spool.store.stat, key)
    etag = f'"{found.etag}"'
    headers = {
        "ETag": etag,
        "Accept-Ranges": "bytes",
        "Cache-Control": "private, no-cache",
        "Content-Disposition": disposition(name),
        "X-Content-Type-Options": "nosniff",
    }
    if _matches(request.headers.get("if-none-match", ""), etag):
        return Response(status_code=304, headers=headers)
    part = _part(request, found, etag)
    start, stop = part or (0, found.bytes)
    headers["Content-Length"] = str(stop - start)
    if part:
        headers["Content-Range"] = f"bytes {start}-{stop - 1}/{found.bytes}"
    status = 206 if part else 200
    if request.method == "HEAD":
        return Response(status_code=status, headers=headers, media_type=media_type)
    body = in_threads(spool.chunks(key, start, stop))
    return ClosingStream(body, status_code=status, headers=headers, media_type=media_type)


def disposition(name: str) -> str:
    """``Content-Disposition`` with the name in ASCII and, where it is not, in UTF-8 as well (RFC 6266)."""
    plain = re.sub(r"[^ -~]|[\"\\%;]", "_", name)
    extended = "" if plain == name else f"; filename*=UTF-8''{quote(name, safe='')}"
    return f'attachment; filename="{plain}"{extended}'


def _matches(asked: str, etag: str) -> bool:
    tags = [tag.strip().removeprefix("W/") for tag in asked.split(",")]
    return "*" in tags or etag in tags


def _part(request: Request, found: Stat, etag: str) -> tuple[int, int] | None:
    """First byte and the one behind the last; None for the whole."""
    asked = _RANGE.fullmatch(request.headers.get("range", "").strip().lower())
    condition = request.headers.get("if-range", etag).strip()
    if asked is None or condition != etag or max(len(asked[1]), len(asked[2])) > _DIGITS:
        return None
    if asked[1] and asked[2] and int(asked[1]) > int(asked[2]):
        return None  # not a range: to be passed over
    if asked[1]:
        start = int(asked[1])
        stop = min(int(asked[2]) + 1, found.bytes) if asked[2] else found.bytes
    elif asked[2]:
        start, stop = max(0, found.bytes - int(asked[2])), found.bytes
    else:
        return None
    if start >= stop:
        unsatisfied = {"Content-Range": f"bytes */{found.bytes}"}
        raise RangeError(f"the object has {found.bytes} bytes", headers=unsatisfied)
    return start, stop
