"""/v1/voices: list, show, import and remove voices."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncGenerator, Iterator
from contextlib import AbstractContextManager, AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import quote

from fastapi import APIRouter
from pydantic import ValidationError
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from rocktop_ray.errors import RocktopError, VoiceFormatError, storage_errors
from rocktop_ray.store.guarded_fetch import check_url
from rocktop_ray.store.sniff import Kind
from rocktop_ray.store.sources import UrlSource
from rocktop_ray.tracking.registry import FetchedVoice, is_reference
from rocktop_ray.voices.info import VoiceInfo
from serve_apps.gateway import openapi
from serve_apps.gateway.bodies import read_body, read_form
from serve_apps.gateway.in_thread import in_thread
from serve_apps.gateway.intake import fetch_policy
from serve_apps.gateway.refusals import ForbiddenError, MediaTypeError
from serve_apps.gateway.voice_objects import VoiceAddresses, VoiceFacts, VoiceForm, VoiceList
from serve_apps.labels import url_label
from serve_apps.registered import check_reference, registered
from serve_apps.requests import FieldsError, field_problems, parse_object
from serve_apps.services import Services

_MAX_JSON = 1 << 20


@dataclass(frozen=True)
class _Brought:
    """Files of a voice to be imported, and what the client said about them."""

    form: VoiceForm
    voice: Path
    label: str
    index: Path | None


def router(services: Services) -> APIRouter:
    """The routes. One voice is imported at a time: to check one needs memory."""
    routes = APIRouter(tags=["voices"])
    shelf, one_at_a_time = services.voices, asyncio.Semaphore(1)

    @routes.get("/v1/voices", summary="List the voices", response_model=VoiceList, responses=openapi.errors())
    async def list_voices() -> Response:
        infos, damaged = await run_in_threadpool(lambda: (shelf.infos(), shelf.damaged()))
        return JSONResponse({"voices": [facts(info) for info in infos], "damaged": damaged})

    @routes.post("/v1/voices", status_code=201, response_model=VoiceFacts, **openapi.IMPORT)
    async def import_voice(request: Request) -> Response:
        _check_may_change(request, services)
        async with AsyncExitStack() as stack:
            brought = await stack.enter_async_context(_brought(request, services))
            await stack.enter_async_context(one_at_a_time)
            info = await run_in_threadpool(_import, services, brought)
        place = {"Location": f"/v1/voices/{quote(info.name, safe='')}"}
        return JSONResponse(facts(info), 201, headers=place)

    @routes.get("/v1/voices/{name}", response_model=VoiceFacts, summary="Facts of one voice", **openapi.ONE_VOICE)
    async def show_voice(name: str) -> Response:
        return JSONResponse(facts(await run_in_threadpool(shelf.info, name)))

    @routes.delete("/v1/voices/{name}", status_code=204, summary="Remove a voice", **openapi.REMOVE)
    async def remove_voice(name: str, request: Request) -> Response:
        _check_may_change(request, services)
        await run_in_threadpool(shelf.remove, name)
        return Response(status_code=204)

    return routes


def facts(info: VoiceInfo) -> dict[str, Any]:
    """A voice as clients see it."""
    return info.as_dict()


def _check_may_change(request: Request, services: Services) -> None:
    if not services.config.limits.import_voices:
        raise ForbiddenError("this service does not let clients add or remove voices")
    if not request.state.admin:
        raise ForbiddenError("this API key may convert, but not add or remove voices")


def _import(services: Services, brought: _Brought) -> VoiceInfo:
    try:
        return services.voices.import_(
            brought.voice,
            name=brought.form.name,
            index=brought.index,
            licence=brought.form.licence,
            replace_existing=brought.form.replace,
            label=brought.label,
        )
    except RocktopError as error:
        error.message = error.message.replace("or replace it", "or send replace=true")
        raise


@asynccontextmanager
async def _brought(request: Request, services: Services) -> AsyncGenerator[_Brought, None]:
    """The files, while the block runs. Raises FieldsError, BodyTooLargeError, FetchError, StorageError..."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    async with AsyncExitStack() as stack:
        if kind == "multipart/form-data":
            folder = Path(await stack.enter_async_context(in_thread(_temporary())))
            yield await _uploaded(request, services, folder)
        elif kind == "application/json" or kind.endswith("+json"):
            form = _addresses(await read_body(request, _MAX_JSON), services)
            if is_reference(form.url):
                found = await stack.enter_async_context(in_thread(registered(services.config, form.url)))
                yield _registered(form, found)
                return
            voice = await stack.enter_async_context(_fetched(services, form.url, "voice"))
            index = None
            if form.index_url is not None:
                index = await stack.enter_async_context(_fetched(services, form.index_url, "index"))
            yield _Brought(form, voice, url_label(form.url, "voice"), index)
        else:
            raise MediaTypeError("send multipart/form-data with a file 'voice', or application/json with 'url'")


async def _uploaded(request: Request, services: Services, folder: Path) -> _Brought:
    labels: dict[str, str] = {}

    @contextmanager
    def open_file(part: str, label: str) -> Iterator[Path]:
        if part in labels:
            raise FieldsError.one(part, "given more than once")
        labels[part] = label
        yield folder / part
        if (folder / part).stat().st_size == 0:
            raise VoiceFormatError(f"{label} is empty (0 bytes)", stage="input")

    limit = services.config.limits.voice_bytes
    fields = await read_form(request, ("voice", "index"), open_file, most_bytes=limit, most_files=2)
    names = [name for name, _ in fields]
    if double := sorted({name for name in names if names.count(name) > 1}):
        raise FieldsError.one(double[0][:64], "given more than once")
    try:
        form = VoiceForm.model_validate_strings({name: text for name, text in fields if text})
    except ValidationError as error:
        raise FieldsError(field_problems(error, (*VoiceForm.model_fields, "voice", "index"))) from error
    if "voice" not in labels:
        raise FieldsError.one("voice", "missing: send the voice's file as a part of that name")
    return _Brought(form, folder / "voice", labels["voice"], folder / "index" if "index" in labels else None)


def _addresses(data: bytes, services: Services) -> VoiceAddresses:
    try:
        form = VoiceAddresses.model_validate(parse_object(data))
    except ValidationError as error:
        raise FieldsError(field_problems(error, tuple(VoiceAddresses.model_fields))) from error
    policy = fetch_policy(services.config.fetch)
    if is_reference(form.url):
        check_reference(services.config, form.url)
        if form.index_url is not None:
            raise FieldsError.one("index_url", "a registered voice comes with its own index")
        return form
    for url in filter(None, (form.url, form.index_url)):
        check_url(url, policy)
    return form


def _registered(form: VoiceAddresses, found: FetchedVoice) -> _Brought:
    name = found.reference.name
    named = form.model_copy(update={"name": form.name or name})
    return _Brought(named, found.voice, f"{name}{found.voice.suffix}", found.index)


def _fetched(services: Services, url: str, kind: Kind) -> Any:
    policy = fetch_policy(services.config.fetch)
    policy = replace(policy, max_bytes=min(policy.max_bytes, services.config.limits.voice_bytes))

    @asynccontextmanager
    async def bring() -> AsyncGenerator[Path, None]:
        async with in_thread(services.cache.get(UrlSource(url, policy, kind))) as entry:
            yield entry.path

    return bring()


@contextmanager
def _temporary() -> Iterator[str]:
    with storage_errors("the temporary folder"):
        folder: AbstractContextManager[str] = tempfile.TemporaryDirectory(prefix="rocktop-")
    with folder as name:
        yield name
