"""TorchServe's inference API, for clients that know no other: ``/ping`` and ``/predictions/{voice}``."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter
from fastapi.responses import JSONResponse
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from rocktop_ray.errors import AudioError, RocktopError, storage_errors
from serve_apps.gateway.bodies import chunks, read_form
from serve_apps.gateway.in_thread import in_thread
from serve_apps.gateway.info_routes import Readiness
from serve_apps.gateway.intake import discard
from serve_apps.gateway.objects import object_answer
from serve_apps.gateway.replies import result_name, until_gone
from serve_apps.gateway.waiting import Waiting
from serve_apps.requests import SETTINGS, ConversionRequest, FieldsError
from serve_apps.services import Services
from serve_apps.spool import RESULTS, TAKES, Spool

_FIELDS = (*SETTINGS, "pitch", "format", "rate", "bitrate", "normalise")
_PREFIX = "x-rocktop-"
_BODY = {
    "requestBody": {
        "required": True,
        "description": "The take: the file itself, or a form with the file as `data`.",
        "content": {
            "application/octet-stream": {"schema": {"type": "string", "format": "binary"}},
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["data"],
                    "properties": {"data": {"type": "string", "format": "binary"}},
                }
            },
        },
    },
    "responses": {"200": {"description": "The converted take.", "content": {"audio/*": {}}}},
}


def router(services: Services) -> APIRouter:
    """The routes. Those who wait for a conversion are counted per gateway."""
    routes = APIRouter(tags=["TorchServe"])
    waiting, readiness = Waiting(services.config.limits.queued), Readiness(services)

    @routes.get("/ping", summary="Whether the service can work")
    async def ping() -> JSONResponse:
        try:
            await readiness.check()
        except RocktopError:
            return JSONResponse({"status": "Unhealthy"}, 503, headers={"Retry-After": "5"})
        return JSONResponse({"status": "Healthy"})

    @routes.post(
        "/predictions/{voice}",
        summary="Convert a take",
        description="Fields of `/v1/convert` come in the query, or as headers `X-Rocktop-<Field>` (`-` for `_`).",
        response_class=Response,
        openapi_extra=_BODY,
    )
    async def predictions(voice: str, request: Request) -> Response:
        return _Prediction(services, waiting, request, voice)

    return routes


class _Prediction(Response):
    """Receives, converts and sends; afterwards nothing is left of it."""

    def __init__(self, services: Services, waiting: Waiting, request: Request, voice: str) -> None:
        self.background = None
        self._services, self._waiting, self._request, self._voice = services, waiting, request, voice

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ASGI. Raises RocktopError before anything is sent."""
        spool, limits = self._services.spool, self._services.config.limits
        fields = ConversionRequest.from_form([("voice", self._voice), *_given(self._request)])
        output = fields.output()
        source, target = Spool.new_key(TAKES), Spool.new_key(RESULTS, output.format.suffix)
        with self._waiting.place() as place:
            voices = self._services.voices
            info, ref = await run_in_threadpool(lambda: (voices.info(fields.voice), voices.refer(fields.voice)))
            try:
                await self._receive(source)
                order = fields.order(
                    request_id=self._request.state.request_id,
                    voice=ref,
                    info=info,
                    source=source,
                    target=target,
                    max_seconds=limits.take_seconds,
                )
                report = await until_gone(self._request, place.run(self._services.conversions, order))
                name = result_name("take", ref.name, output.format)
                answer = await object_answer(self._request, spool, target, report.media_type, name)
                await answer(scope, receive, send)
            finally:
                await discard(spool, [source, target])

    async def _receive(self, key: str) -> None:
        """The take into the spool. Raises BodyTooLargeError, BodyTimeoutError, FieldsError, AudioError..."""
        request, spool = self._request, self._services.spool
        request.state.names[key] = "the take"
        most = self._services.config.limits.upload_bytes
        if request.headers.get("content-type", "").lower().startswith("multipart/form-data"):
            files: list[str] = []

            def open_file(_: str, name: str) -> Any:
                files.append(name)
                return spool.writing(key)

            fields = await read_form(request, ("data",), open_file, most_bytes=most, most_files=1)
            if not files or fields:
                raise FieldsError.one("data", "send the take as the one part 'data'; settings go into the query")
            if not (await run_in_threadpool(spool.store.stat, key)).bytes:
                raise AudioError("the take is empty (0 bytes)", stage="input")
            return
        async with in_thread(spool.writing(key)) as path:
            if not await _write_body(request, path.open("xb"), most):
                raise AudioError("the take is empty: send it as the body", stage="input")


async def _write_body(request: Request, file: Any, most: int) -> int:
    """The body as it comes in, into a file; how many bytes."""
    total = 0
    try:
        async for chunk in chunks(request, most, "the take"):
            total += len(chunk)
            with storage_errors("the upload", "write"):
                await run_in_threadpool(file.write, chunk)
        return total
    finally:
        file.close()


def _given(request: Request) -> list[tuple[str, str]]:
    """Settings of the query, and of headers named after them. Raises FieldsError on one that there is not."""
    given = list(request.query_params.multi_items())
    for name, text in request.headers.items():
        field = name.removeprefix(_PREFIX).replace("-", "_")
        if name.startswith(_PREFIX) and field in _FIELDS:
            given.append((field, text))
    for field, _ in given:
        if field not in _FIELDS:
            raise FieldsError.one(field[:64], f"unknown; known are {', '.join(_FIELDS)}")
    return given
