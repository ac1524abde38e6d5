"""The HTTP application: routers put together, with what is around every request."""

from __future__ import annotations

from fastapi import FastAPI
from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp, Scope

import rocktop_ray
from rocktop_ray.errors import RocktopError
from serve_apps import studio
from serve_apps.gateway import convert_routes, docs_routes, info_routes, job_routes, openapi, problems, voice_routes
from serve_apps.gateway.frame import Frame
from serve_apps.gateway.guard import Guard
from serve_apps.gateway.sockets import nowhere, refusal
from serve_apps.live import routes as live_routes
from serve_apps.nano import routes as nano_routes
from serve_apps.observe import routes as observe_routes
from serve_apps.observe.http import HttpMeter
from serve_apps.services import Services

_METHODS = ("GET", "HEAD", "POST", "DELETE", "OPTIONS")
_ASKED = ("Authorization", "X-API-Key", "X-Request-Id", "Content-Type", "Range", "If-Range", "If-None-Match")
_TOLD = (
    *("X-Request-Id", "X-Rocktop-Seconds", "X-Rocktop-Key", "X-Rocktop-Real-Time-Factor", "Retry-After", "Location"),
    *("Content-Disposition", "Content-Range", "Accept-Ranges", "ETag"),
)


def build_api(services: Services) -> FastAPI:
    """The application, for uvicorn or for the ingress of Ray Serve. Raises SettingsError on a bad configuration."""
    config = services.config
    veil = problems.Veil(config)
    app = FastAPI(
        title="rocktop-ray",
        version=rocktop_ray.__version__,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
    )
    problems.install(app, veil)
    for router in (
        convert_routes.router(services),
        job_routes.router(services),
        voice_routes.router(services),
        info_routes.router(services),
        nano_routes.router(services),
        observe_routes.router(services),
        docs_routes.router(),
        studio.router(),
    ):
        app.include_router(router)
    if services.live is not None and services.desk is not None:
        app.include_router(
            live_routes.router(
                services.live, services.desk, config.live, services.voices, veil, config.gateway.concurrency
            )
        )
    app.router.default = nowhere(app.router.default, veil)
    openapi.describe(app, config)

    def refuse(error: RocktopError, scope: Scope) -> ASGIApp:
        return refusal(error, scope, veil) if scope["type"] == "websocket" else problems.respond(error, scope, veil)

    # The last one added is the outermost.
    app.add_middleware(Guard, config=config.security, refuse=refuse)
    if config.security.origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=config.security.origins,
            allow_methods=_METHODS,
            allow_headers=_ASKED,
            expose_headers=_TOLD,
            max_age=600,
        )
    app.add_middleware(HttpMeter)
    app.add_middleware(Frame, veil=veil)
    return app
