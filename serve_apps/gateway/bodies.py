"""Bodies of requests: read while they come in, counted, and refused as soon as they are too large or too slow."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Collection
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, BinaryIO

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request

from rocktop_ray.errors import storage_errors
from serve_apps.gateway.in_thread import in_thread
from serve_apps.gateway.multipart import PartBegin, PartData, read_multipart
from serve_apps.gateway.refusals import BodyTimeoutError, BodyTooLargeError
from serve_apps.labels import clean_label
from serve_apps.requests import FieldsError

MAX_JSON = 48 << 20
"""Bytes of a JSON body: it may hold a ``data:`` address of 32 MiB."""
MAX_FIELDS = 64
MAX_FIELD_BYTES = 8192
SILENCE = 30.0
"""Seconds in which a client has to send the next bytes of its body."""
SLOWEST = 1024.0
"""Bytes in a second, over the time that was waited for them: who sends less, for longer than SILENCE, holds a place
that others need."""

_SLACK = 1 << 20
_BLOCK = 1 << 20


async def read_body(request: Request, most: int = MAX_JSON) -> bytes:
    """A whole small body. Raises BodyTooLargeError, BodyTimeoutError."""
    return b"".join([chunk async for chunk in chunks(request, most)])


async def read_form(
    request: Request,
    files: Collection[str],
    open_file: Callable[[str, str], AbstractContextManager[Path]],
    *,
    most_bytes: int,
    most_files: int,
) -> list[tuple[str, str]]:
    """Read a form whose parts named in ``files`` are written to files, as they come in.

    Args:
        open_file: name of the part and label of the file -> where to write it; left with an error it must clean up.
        most_bytes: of one file.
        most_files: in all.

    Returns the plain fields. Raises FieldsError, BadRequestError, BodyTooLargeError, BodyTimeoutError, StorageError.
    """
    fields: list[tuple[str, str]] = []
    pieces = read_multipart(request.headers["content-type"], chunks(request, most_files * most_bytes + _SLACK))
    count = 0
    async for piece in pieces:
        if not isinstance(piece, PartBegin):
            continue
        if piece.name in files:
            count += 1
            if count > most_files:
                raise FieldsError.one(piece.name, f"at most {most_files} files are accepted in one request")
            async with in_thread(open_file(piece.name, clean_label(piece.filename or "", "take"))) as path:
                await _write(pieces, path, most_bytes)
        else:
            if len(fields) == MAX_FIELDS:
                raise FieldsError.one("body", f"more than {MAX_FIELDS} fields")
            if piece.filename is not None:
                known = " or ".join(f"{name!r}" for name in sorted(files))
                raise FieldsError.one(piece.name[:64], f"no file is expected here; files are called {known}")
            fields.append((piece.name, await _text(pieces, piece.name)))
    return fields


async def chunks(request: Request, most: int, what: str = "the request's body") -> AsyncGenerator[bytes, None]:
    """The body as it comes in, refused as soon as it is known to be too large or too slow.

    Raises BodyTooLargeError, BodyTimeoutError.
    """
    declared = request.headers.get("content-length", "")
    too_large = BodyTooLargeError(f"{what} is larger than the limit of {most:,} bytes")
    if declared.isascii() and declared.isdigit() and int(declared[:20]) > most:
        raise too_large
    total, waited = 0, 0.0
    stream = request.stream()
    while True:
        began = time.monotonic()
        try:
            async with asyncio.timeout(SILENCE):
                chunk = await anext(stream, None)
        except TimeoutError:
            raise BodyTimeoutError(f"no byte of the body came in for {SILENCE:g} s") from None
        if chunk is None:
            return
        total, waited = total + len(chunk), waited + time.monotonic() - began
        if total > most:
            raise too_large
        if waited > SILENCE and total < SLOWEST * waited:
            raise BodyTimeoutError(f"the body comes in too slowly: {total:,} bytes in {waited:.0f} s")
        yield chunk


async def _write(pieces: AsyncIterator[Any], path: Path, most: int) -> None:
    """The data of one part, to a new file."""
    with storage_errors("the upload", "write"):
        file: BinaryIO = await run_in_threadpool(path.open, "xb")
    total, block = 0, bytearray()
    try:
        async for piece in pieces:
            if not isinstance(piece, PartData):
                break
            total += len(piece.data)
            if total > most:
                raise BodyTooLargeError(f"the file is larger than the limit of {most:,} bytes")
            block += piece.data
            if len(block) >= _BLOCK:
                await _flush(file, block)
        await _flush(file, block)
    finally:
        file.close()


async def _flush(file: BinaryIO, block: bytearray) -> None:
    with storage_errors("the upload", "write"):
        await run_in_threadpool(file.write, bytes(block))
    block.clear()


async def _text(pieces: AsyncIterator[Any], name: str) -> str:
    data = bytearray()
    async for piece in pieces:
        if not isinstance(piece, PartData):
            break
        data += piece.data
        if len(data) > MAX_FIELD_BYTES:
            raise FieldsError.one(name[:64], f"longer than {MAX_FIELD_BYTES} bytes")
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise FieldsError.one(name[:64], "not UTF-8 text") from None
