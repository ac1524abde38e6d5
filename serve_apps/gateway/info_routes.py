"""What a client may want to know first: models, formats, limits, and whether the service is well."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from typing import Any

from fastapi import APIRouter
from pydantic import BaseModel, Field
from starlette.concurrency import run_in_threadpool

import rocktop_ray
from rocktop_ray.audio.formats import DEFAULT_BITRATE, FORMATS, bitrates
from rocktop_ray.errors import RocktopError
from rocktop_ray.features.content.registry import CONTENT_ENCODERS
from rocktop_ray.features.pitch.registry import EXTRACTORS, weights_of
from rocktop_ray.protocols import TAKE_RATE
from rocktop_ray.store.catalogue import lookup
from rocktop_ray.store.fetch import command, location
from serve_apps.gateway import openapi
from serve_apps.gateway.bodies import MAX_FIELD_BYTES
from serve_apps.gateway.refusals import NotReadyError
from serve_apps.requests import DEFAULT_FORMAT
from serve_apps.services import Services
from serve_apps.spool import Spool

_WELL, _AMISS = 10.0, 2.0
"""Seconds for which all is taken to be as it was found. To look takes Python's lock from live streams of this process
for tens of milliseconds, as Serve tells the whole of its status."""
_PATIENCE = 5.0
_log = logging.getLogger(__name__)


class ModelFacts(BaseModel):
    """A content encoder or pitch extractor."""

    name: str
    kind: str = Field(description="`content` or `pitch`.")
    installed: bool
    install: str | None = Field(description="The command that installs it; null where nothing is needed.")


class Models(BaseModel):
    """What is known, and what of it is there."""

    content_encoders: list[ModelFacts]
    pitch_extractors: list[ModelFacts]


class FormatFacts(BaseModel):
    """A format of results."""

    name: str
    suffix: str
    media_type: str
    lossless: bool
    bits: int | None = Field(description="Bits per sample of integer formats.")
    rates: list[int] | None = Field(description="Sample rates in Hz; null for any up to `max_rate`.")
    max_rate: int
    bitrates: list[int] | dict[str, int] | None = Field(description="At 48 kHz: a list, or `min` and `max`; or null.")
    streams: bool = Field(description="Whether `stream=true` is possible.")


class Formats(BaseModel):
    """All formats, and what is taken where a request does not say."""

    formats: list[FormatFacts]
    default: dict[str, Any]


class Limits(BaseModel):
    """What one request may ask for."""

    upload_bytes: int = Field(description="Of one take.")
    take_seconds: float
    voice_bytes: int = Field(description="Of a voice's file.")
    field_bytes: int = Field(description="Of one field of a form.")
    fetch_bytes: int = Field(description="Of a file behind an address.")
    fetch_seconds: float
    batch_takes: int
    queued: int = Field(description="Requests that may wait at a gateway.")
    jobs: int = Field(description="Jobs that may wait or run.")
    keep_hours: float = Field(description="How long results of jobs are kept.")
    import_voices: bool = Field(description="Whether voices may be added and removed.")
    key_required: bool


class Health(BaseModel):
    """It is well."""

    status: str
    version: str


def router(services: Services) -> APIRouter:
    """The routes."""
    routes = APIRouter()
    ready = Readiness(services)

    @routes.get("/v1/models", tags=["service"], summary="Content encoders and pitch extractors")
    async def models() -> Models:
        return await run_in_threadpool(_models)

    @routes.get("/v1/formats", tags=["service"], summary="Formats of results")
    async def formats() -> Formats:
        return _formats()

    @routes.get("/v1/limits", tags=["service"], summary="What may be asked for")
    async def limits() -> Limits:
        return _limits(services)

    @routes.get("/healthz", tags=["operation"], summary="Whether the gateway is alive")
    async def healthz() -> Health:
        return Health(status="ok", version=rocktop_ray.__version__)

    @routes.get("/readyz", tags=["operation"], summary="Whether takes can be converted", responses=openapi.errors(503))
    async def readyz() -> Health:
        await ready.check()
        return Health(status="ready", version=rocktop_ray.__version__)

    return routes


class Readiness:
    """Asks the store and whoever converts, but not with every probe."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._guard = asyncio.Lock()
        self._at, self._error = float("-inf"), ""

    async def check(self) -> None:
        """Raises NotReadyError, which says what is amiss."""
        async with self._guard:
            if time.monotonic() - self._at > (_AMISS if self._error else _WELL):
                self._error = await self._look()
                self._at = time.monotonic()
        if self._error:
            raise NotReadyError(self._error)

    async def _look(self) -> str:
        try:
            async with asyncio.timeout(_PATIENCE):
                await run_in_threadpool(self._write)
                ready: Callable[[], Awaitable[bool]] | None = getattr(self._services.conversions, "ready", None)
                if ready is not None and not await ready():
                    return "the stages are still starting, or were lost"
        except TimeoutError:
            return "the store, or a stage, does not answer"
        except RocktopError as error:
            _log.warning("not ready", extra={"code": error.code, "why": error.message})
            return "the store cannot be written"
        return ""

    def _write(self) -> None:
        store, key = self._services.spool.store, Spool.new_key("health")
        store.write(key, b"well")
        store.delete(key)


def _models() -> Models:
    content = []
    for name in CONTENT_ENCODERS:
        weights = f"{name}-encoder" if name.startswith("whisper-") else "hubert_base"
        content.append(_model(name, "content", weights))
    return Models(
        content_encoders=content, pitch_extractors=[_model(name, "pitch", weights_of(name)) for name in EXTRACTORS]
    )


def _model(name: str, kind: str, weights: str | None) -> ModelFacts:
    installed = weights is None or location(lookup(weights)).is_file()
    return ModelFacts(name=name, kind=kind, installed=installed, install=command(weights) if weights else None)


def _formats() -> Formats:
    shown = []
    for entry in FORMATS.values():
        allowed = None if entry.lossless else bitrates(entry, TAKE_RATE)
        choice = {"min": allowed[0], "max": allowed[-1]} if isinstance(allowed, range) else allowed
        shown.append(
            FormatFacts(
                name=entry.name,
                suffix=entry.suffix,
                media_type=entry.media_type,
                lossless=entry.lossless,
                bits=entry.bits or None,
                rates=list(entry.rates) or None,
                max_rate=entry.rates[-1] if entry.rates else entry.max_rate,
                bitrates=list(choice) if isinstance(choice, tuple) else choice,
                streams=entry.name != "m4a",
            )
        )
    return Formats(formats=shown, default={"format": DEFAULT_FORMAT, "rate": TAKE_RATE, "bitrate": DEFAULT_BITRATE})


def _limits(services: Services) -> Limits:
    limits, fetch = services.config.limits, services.config.fetch
    return Limits(
        upload_bytes=limits.upload_bytes,
        take_seconds=limits.take_seconds,
        voice_bytes=limits.voice_bytes,
        field_bytes=MAX_FIELD_BYTES,
        fetch_bytes=fetch.max_bytes,
        fetch_seconds=fetch.seconds,
        batch_takes=limits.batch_takes,
        queued=limits.queued,
        jobs=limits.jobs,
        keep_hours=limits.keep_hours,
        import_voices=limits.import_voices,
        key_required=services.config.security.keys is not None,
    )
