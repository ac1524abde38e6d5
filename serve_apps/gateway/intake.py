"""Takes come in: uploads are counted while they stream into the spool, addresses are fetched through the cache."""

from __future__ import annotations

import asyncio
import contextvars
import shutil
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Collection
from contextlib import AbstractContextManager, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

import anyio
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request

from rocktop_ray.errors import AudioError, StorageError, UrlRefusedError, storage_errors
from rocktop_ray.store.guarded_fetch import FetchPolicy, check_url
from rocktop_ray.store.sniff import Kind
from rocktop_ray.store.sources import UrlSource
from serve_apps.config import FetchConfig
from serve_apps.gateway.multipart import PartBegin, PartData, read_multipart
from serve_apps.gateway.refusals import BodyTimeoutError, BodyTooLargeError, MediaTypeError
from serve_apps.labels import clean_label, url_label
from serve_apps.requests import ConversionRequest, FieldsError
from serve_apps.services import Services
from serve_apps.spool import TAKES, Spool

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
_T = TypeVar("_T")


@dataclass(frozen=True)
class Take:
    """A take in the spool."""

    key: str
    name: str
    """What the client calls it: a label, never a path."""
    bytes: int


@dataclass
class Received:
    """A request with its takes: uploaded ones are in the spool, those with addresses are yet to be fetched."""

    fields: ConversionRequest
    takes: list[Take] = field(default_factory=list)
    kept: bool = False

    def keep(self) -> None:
        """The takes stay when the block that received them ends: somebody else deletes them."""
        self.kept = True


@asynccontextmanager
async def received(request: Request, services: Services, *, batch: bool = False) -> AsyncGenerator[Received, None]:
    """The body of a conversion request, form or JSON, checked. Uploads are gone when the block ends, unless kept.

    batch: several ``take`` parts, or ``take_urls``; else exactly one ``take`` or ``take_url``.

    Raises FieldsError, BadRequestError, BodyTooLargeError, BodyTimeoutError, MediaTypeError, AudioError (an empty
    upload), StorageError, UrlRefusedError (what ``check_url`` refuses).
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    takes: list[Take] = []
    got: Received | None = None
    try:
        if kind == "multipart/form-data":
            fields = await _form(request, services, takes, services.config.limits.batch_takes if batch else 1)
            got = Received(ConversionRequest.from_form(fields), takes)
            if not takes:
                raise FieldsError.one("take", "missing: send the audio file as a part of that name")
        elif kind == "application/json" or kind.endswith("+json"):
            got = Received(ConversionRequest.from_json(await read_body(request)))
            _check_addresses(got.fields, services, batch)
        else:
            raise MediaTypeError("send multipart/form-data with a file 'take', or application/json with 'take_url'")
        request.state.names.update({take.key: take.name for take in takes})
        yield got
    finally:
        if not (got and got.kept):
            await discard(services.spool, [take.key for take in takes])


@asynccontextmanager
async def fetched(services: Services, url: str, kind: Kind = "audio") -> AsyncGenerator[Path, None]:
    """What lies behind a foreign address, as a file that may be read while the block runs.

    Raises FetchError, StorageError.
    """
    source = UrlSource(url, fetch_policy(services.config.fetch), kind)
    async with in_thread(services.cache.get(source)) as entry:
        yield entry.path


async def fetch_take(services: Services, url: str) -> Take:
    """Bring the take behind a foreign address into the spool. Raises FetchError, StorageError."""
    key = Spool.new_key(TAKES)

    def copy(path: Path) -> int:
        with services.spool.writing(key) as target:
            shutil.copyfile(path, target)
            return target.stat().st_size

    async with fetched(services, url) as path:
        return Take(key, url_label(url, "take"), await run_in_threadpool(copy, path))


def fetch_policy(config: FetchConfig) -> FetchPolicy:
    """What may be fetched, from the configuration."""
    only = None if config.only is None else tuple(config.only)
    return FetchPolicy(
        max_bytes=config.max_bytes, total_seconds=config.seconds, trusted=tuple(config.trusted), only=only
    )


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


async def discard(spool: Spool, keys: Collection[str]) -> None:
    """Delete objects of the spool, also while the request is being cancelled; what cannot be is left to the janitor."""
    if keys:
        await _surely(_delete, spool, tuple(keys))


@asynccontextmanager
async def in_thread(manager: AbstractContextManager[_T]) -> AsyncGenerator[_T, None]:
    """A blocking context manager, entered and left in threads; left even while the task is being cancelled."""
    value: _T | None = None
    entered = False

    def enter() -> None:
        nonlocal value, entered
        value = manager.__enter__()
        entered = True

    def leave(*what: Any) -> None:
        if entered:
            manager.__exit__(*what)

    try:
        await run_in_threadpool(enter)
        yield value  # type: ignore[misc]
    except BaseException as error:
        await _surely(leave, type(error), error, error.__traceback__)
        raise
    else:
        await _surely(leave, None, None, None)


async def _surely(function: Callable[..., None], *args: Any) -> None:
    """Call it in a thread, at once: it runs to its end also when this task is cancelled before or while it waits.

    A thread pool of anyio can be kept from starting by a plain cancellation, which is what Serve does to the task of a
    client that hangs up the moment it has its last byte.
    """
    working = asyncio.get_running_loop().run_in_executor(None, contextvars.copy_context().run, function, *args)
    with anyio.CancelScope(shield=True):
        await asyncio.shield(working)


async def _form(request: Request, services: Services, takes: list[Take], most: int) -> list[tuple[str, str]]:
    """The plain fields; uploads are added to ``takes`` as they become whole."""
    limit = services.config.limits.upload_bytes

    def open_take(_: str, name: str) -> AbstractContextManager[Path]:
        return _Upload(services.spool, name, takes)

    return await read_form(request, ("take",), open_take, most_bytes=limit, most_files=most)


class _Upload(AbstractContextManager[Path]):
    """A take on its way into the spool."""

    def __init__(self, spool: Spool, name: str, takes: list[Take]) -> None:
        self._key = Spool.new_key(TAKES)
        self._name, self._takes = name, takes
        self._writing = spool.writing(self._key)

    def __enter__(self) -> Path:
        self._path = self._writing.__enter__()
        return self._path

    def __exit__(self, *what: Any) -> None:
        if what[0] is not None:
            self._writing.__exit__(*what)
            return
        size = self._path.stat().st_size
        if size == 0:
            error = AudioError(f"{self._name} is empty (0 bytes)", stage="input")
            self._writing.__exit__(AudioError, error, None)
            raise error
        self._takes.append(Take(self._key, self._name, size))  # before it is there, so that it is deleted in any case
        self._writing.__exit__(None, None, None)


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


def _check_addresses(fields: ConversionRequest, services: Services, batch: bool) -> None:
    if batch:
        if fields.take_url is not None or not fields.take_urls:
            raise FieldsError.one("take_urls", "missing: a batch names the addresses of its takes in a list")
        most = services.config.limits.batch_takes
        if len(fields.take_urls) > most:
            raise FieldsError.one("take_urls", f"at most {most} takes are accepted in one batch")
    elif fields.take_urls is not None or fields.take_url is None:
        raise FieldsError.one("take_url", "missing: the address of the take (or send the file itself as a form)")
    policy = fetch_policy(services.config.fetch)
    for number, url in enumerate(fields.take_urls or [fields.take_url or ""], 1):
        try:
            check_url(url, policy)
        except UrlRefusedError as error:
            raise UrlRefusedError(f"take {number}: {error.message}" if batch else error.message) from None


def _delete(spool: Spool, keys: tuple[str, ...]) -> None:
    for key in keys:
        try:
            spool.store.delete(key)
        except StorageError:
            continue
