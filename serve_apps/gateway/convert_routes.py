"""POST /v1/convert: a take comes in, its conversion goes out."""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from dataclasses import dataclass

import anyio
from fastapi import APIRouter
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import Receive, Scope, Send

from rocktop_ray.errors import RocktopError
from rocktop_ray.voices.info import VoiceInfo
from serve_apps.gateway import openapi
from serve_apps.gateway.intake import Received, Take, discard, fetch_take, received
from serve_apps.gateway.job_objects import job_object
from serve_apps.gateway.job_routes import submit_received
from serve_apps.gateway.objects import disposition, object_answer
from serve_apps.gateway.problems import MEDIA_TYPE, Veil
from serve_apps.gateway.replies import result_name, until_gone
from serve_apps.gateway.waiting import Place, Waiting
from serve_apps.jobs.protocol import FINAL, Job
from serve_apps.orders import AudioBytes, Order, Started, VoiceRef
from serve_apps.requests import ConversionRequest
from serve_apps.services import Services
from serve_apps.spool import RESULTS, Spool

_log = logging.getLogger(__name__)


class BrokenStreamError(Exception):
    """A stream failed after its first bytes: the connection is to be broken, so that it is not taken for whole."""


def router(services: Services) -> APIRouter:
    """The route. Requests that wait are counted per gateway."""
    routes = APIRouter()
    waiting = Waiting(services.config.limits.queued)

    @routes.post("/v1/convert", tags=["convert"], response_class=Response, **openapi.CONVERT)
    async def convert(request: Request) -> Response:
        return _Conversion(services, waiting, request)

    return routes


async def chosen_voice(services: Services, fields: ConversionRequest) -> tuple[VoiceInfo, VoiceRef]:
    """The voice that a request asks for. Raises VoiceNotFoundError, VoiceFormatError, StorageError."""
    return await run_in_threadpool(lambda: (services.voices.info(fields.voice), services.voices.refer(fields.voice)))


@dataclass(frozen=True)
class _Asked:
    """A request that was read and found good."""

    fields: ConversionRequest
    info: VoiceInfo
    voice: VoiceRef
    take: Take


class _Conversion(Response):
    """ASGI answer: receives, converts and sends, all while the connection lives; afterwards nothing is left of it."""

    def __init__(self, services: Services, waiting: Waiting, request: Request) -> None:
        self._services, self._waiting, self._request = services, waiting, request
        self.background = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ASGI. Raises RocktopError before anything is sent, BrokenStreamError after."""
        async with AsyncExitStack() as sent:
            with self._waiting.place() as place:
                async with received(self._request, self._services) as got:
                    if _wants_json(self._request, got.fields):
                        answer = await self._as_job(got, place)
                    else:
                        async with self._take(got) as take:
                            info, voice = await chosen_voice(self._services, got.fields)
                            asked = _Asked(got.fields, info, voice, take)
                            if got.fields.stream:
                                await self._stream(asked, place, send)
                                return
                            answer = await self._whole(asked, place, sent)
            await answer(scope, receive, send)

    @asynccontextmanager
    async def _take(self, got: Received) -> AsyncGenerator[Take, None]:
        if got.takes:
            yield got.takes[0]
            return
        assert got.fields.take_url is not None
        take = await until_gone(self._request, fetch_take(self._services, got.fields.take_url))
        self._request.state.names[take.key] = take.name
        try:
            yield take
        finally:
            await discard(self._services.spool, [take.key])

    def _order(self, asked: _Asked, target: str | None) -> Order:
        return asked.fields.order(
            request_id=self._request.state.request_id,
            voice=asked.voice,
            info=asked.info,
            source=asked.take.key,
            target=target,
            max_seconds=self._services.config.limits.take_seconds,
        )

    async def _whole(self, asked: _Asked, place: Place, sent: AsyncExitStack) -> Response:
        """The result is deleted when it is ``sent``."""
        output = asked.fields.output()
        target = Spool.new_key(RESULTS, output.format.suffix)
        sent.push_async_callback(discard, self._services.spool, [target])
        report = await until_gone(self._request, place.run(self._services.conversions, self._order(asked, target)))
        name = result_name(asked.take.name, asked.voice.name, output.format)
        answer = await object_answer(self._request, self._services.spool, target, report.media_type, name)
        answer.headers["X-Rocktop-Seconds"] = f"{report.seconds:.3f}"
        answer.headers["X-Rocktop-Key"] = f"{report.facts['key']:g}"
        answer.headers["X-Rocktop-Real-Time-Factor"] = f"{report.facts['real_time_factor']:.4f}"
        answer.headers["Cache-Control"] = "no-store"
        return answer

    async def _stream(self, asked: _Asked, place: Place, send: Send) -> None:
        """Nothing is sent before the first bytes are there: until then an error is an answer of its own."""
        output = asked.fields.output()
        sent = False

        async def work() -> None:
            nonlocal sent
            async with aclosing(self._services.conversions.run(self._order(asked, None))) as events:
                async for event in events:
                    if isinstance(event, Started):
                        place.begin()
                    elif isinstance(event, AudioBytes) and event.data:
                        if not sent:
                            name = result_name(asked.take.name, asked.voice.name, output.format)
                            start = Response(media_type=output.format.media_type)
                            start.headers["Content-Disposition"] = disposition(name)
                            del start.headers["content-length"]
                            await send({"type": "http.response.start", "status": 200, "headers": start.raw_headers})
                            sent = True
                        await send({"type": "http.response.body", "body": event.data, "more_body": True})
            await send({"type": "http.response.body", "body": b"", "more_body": False})

        try:
            await until_gone(self._request, work())
        except RocktopError as error:
            if not sent:
                raise
            _log.warning("stream broken", extra={"code": error.code, "stage": error.stage, "why": error.message})
            raise BrokenStreamError(error.code) from None

    async def _as_job(self, got: Received, place: Place) -> Response:
        """The same as a job whose end is waited for; it is cancelled when the client goes away."""
        state = self._request.state
        (queued,) = await submit_received(self._services, got, state.owner)
        place.begin()
        try:
            job = await until_gone(self._request, self._final(queued.id))
        except BaseException:
            with anyio.CancelScope(shield=True):
                await self._services.jobs.cancel(queued.id)
            raise
        shown = job_object(job, Veil(self._services.config)).model_dump()
        if shown["error"] is not None:
            error = {**shown["error"], "request_id": state.request_id}
            return JSONResponse(error, error["status"], media_type=MEDIA_TYPE)
        return JSONResponse(shown)

    async def _final(self, id: str) -> Job:
        async with aclosing(self._services.jobs.watch(id)) as changes:
            async for job in changes:
                if job.status in FINAL:
                    return job
        return await self._services.jobs.get(id)


def _wants_json(request: Request, fields: ConversionRequest) -> bool:
    if "reply" in fields.model_fields_set or fields.stream:
        return fields.reply == "json"
    accept = request.headers.get("accept", "").lower()
    return "application/json" in accept and "audio/" not in accept and "*/*" not in accept
