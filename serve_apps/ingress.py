"""Deployment ``Gateway``: the HTTP application, in front of the converter and the jobs."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from ray import serve

from rocktop_ray.store.cache import ContentCache
from serve_apps.config import ServeConfig
from serve_apps.dispatch import ServeConversions
from serve_apps.gateway.app import build_api
from serve_apps.jobs.remote import RemoteJobs
from serve_apps.live.transport.remote import RemoteDesk, ServeEngine
from serve_apps.observe.logs import configure_logging
from serve_apps.permanent import keep_loaded
from serve_apps.replicas import open_meter
from serve_apps.services import Services
from serve_apps.spool import Spool
from serve_apps.voices import VoiceShelf


@serve.ingress()
class GatewayReplica:
    """One replica of the deployment."""

    def __init__(self, config: ServeConfig, converter: Any, jobs: Any, live: Any, desk: Any) -> None:
        """converter, jobs, live, desk: handles of those deployments."""
        configure_logging()
        self._services = Services(
            config=config,
            spool=Spool.open(config.store_place),
            conversions=ServeConversions.over(converter, config, open_meter()),
            jobs=RemoteJobs(jobs),
            voices=VoiceShelf.open(config),
            cache=ContentCache(config.cache_folder, config.fetch.cache_bytes),
            live=ServeEngine(live),
            desk=RemoteDesk(desk),
        )

    def __serve_build_asgi_app__(self) -> FastAPI:
        """What answers; Serve asks for it once."""
        api = build_api(self._services)
        keep_loaded()
        return api

    async def check_health(self) -> None:
        """Answers while the event loop runs; Serve replaces a replica that does not."""
