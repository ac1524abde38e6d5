"""GET /metrics: everything that this deployment tells, at one address, in Prometheus' text format."""

from __future__ import annotations

import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from fastapi import APIRouter, FastAPI, Response

from serve_apps.observe.catalogue import BY_NAME
from serve_apps.observe.exposition import MEDIA_TYPE, SHOWN, merged
from serve_apps.observe.recorders import ProcessRecorder, process_recorder, recorder
from serve_apps.observe.scrape import Exporters
from serve_apps.observe.watch import Watch
from serve_apps.services import Services


def router(services: Services) -> APIRouter:
    """The route, and while the application lives a watch over the cache and the disk of this gateway."""

    @asynccontextmanager
    async def watching(_: FastAPI) -> AsyncGenerator[None, None]:
        places = {"store": services.config.store_place, "cache": str(services.config.cache_folder)}
        with Watch(recorder(), cache=services.cache, places=places):
            yield

    routes = APIRouter(lifespan=watching)
    exporters: Exporters | None = None

    @routes.get("/metrics", tags=["operation"], summary="Metrics for Prometheus", response_class=Response)
    async def metrics() -> Response:
        """Of all nodes where this runs on Ray, else of this process."""
        nonlocal exporters
        if _on_ray():
            exporters = exporters or Exporters()
            answers = await exporters.texts()
            texts = [text for text in answers if text is not None]
            texts.append(_told(len(texts), len(answers)))
        else:
            own = process_recorder()
            texts = [own.text()] if isinstance(own, ProcessRecorder) else []
        return Response(merged(texts, SHOWN), media_type=MEDIA_TYPE)

    return routes


def _on_ray() -> bool:
    ray = sys.modules.get("ray")
    return ray is not None and bool(ray.is_initialized())


def _told(answered: int, asked: int) -> str:
    """Whether the answer is whole, as a metric."""
    name = "rocktop_exporters"
    lines = [f"# HELP {name} {BY_NAME[name].meaning}", f"# TYPE {name} gauge"]
    lines += [f'{name}{{state="answered"}} {answered}', f'{name}{{state="missing"}} {asked - answered}']
    return "\n".join(lines)
