"""Takes come in: uploads stream into the spool, addresses are fetched through the cache."""

from __future__ import annotations

import shutil
from collections.abc import AsyncGenerator, Collection
from contextlib import AbstractContextManager, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request

from rocktop_ray.errors import AudioError, StorageError, UrlRefusedError
from rocktop_ray.store.guarded_fetch import FetchPolicy, check_url
from rocktop_ray.store.sniff import Kind
from rocktop_ray.store.sources import UrlSource
from serve_apps.config import FetchConfig
from serve_apps.gateway.bodies import read_body, read_form
from serve_apps.gateway.in_thread import in_thread, surely
from serve_apps.gateway.refusals import MediaTypeError
from serve_apps.labels import url_label
from serve_apps.requests import ConversionRequest, FieldsError
from serve_apps.services import Services
from serve_apps.spool import TAKES, Spool


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


async def discard(spool: Spool, keys: Collection[str]) -> None:
    """Delete objects of the spool, also while the request is being cancelled; what cannot be is left to the janitor."""
    if keys:
        await surely(_delete, spool, tuple(keys))


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
