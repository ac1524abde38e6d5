"""The whole gateway over real HTTP, on a free loopback port: conversions with very small networks, in this process."""

from __future__ import annotations

import asyncio
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

import httpx
import pytest
import uvicorn
from serve_cluster import small_home

from actors.content import ContentActor
from actors.pitch import PitchActor
from actors.turns import Turns
from actors.voice_cache import VoiceCache
from rocktop_ray.store.cache import ContentCache
from rocktop_ray.store.sources import UrlSource
from serve_apps.config import ServeConfig
from serve_apps.conversions import LocalConversions
from serve_apps.gateway.app import build_api
from serve_apps.gateway.intake import fetch_policy
from serve_apps.jobs.board import JobBoard
from serve_apps.jobs.convert_runner import ConvertRunner
from serve_apps.orders import Conversions, VoiceRef
from serve_apps.services import Services
from serve_apps.spool import Spool
from serve_apps.stages import LocalStages, StagedConverters
from serve_apps.voices import VoiceShelf


def eventually(check: Callable[[], bool], seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    while not check():
        assert time.monotonic() < end
        time.sleep(0.02)


@dataclass
class Gateway:
    url: str
    services: Services
    config: ServeConfig

    def client(self, **options: Any) -> httpx.Client:
        return httpx.Client(base_url=self.url, timeout=120, trust_env=False, **options)

    def spooled(self) -> list[str]:
        """What lies in the store besides jobs."""
        return [found.key for found in self.services.spool.store.list() if not found.key.startswith("jobs/")]


def local_services(config: ServeConfig, conversions: Conversions | None = None) -> Services:
    """Everything in this process. Its jobs are to be started in the loop that serves."""
    shelf = VoiceShelf.open(config)
    cache = ContentCache(config.cache_folder, config.fetch.cache_bytes)
    policy = fetch_policy(config.fetch)
    spool = Spool.open(config.store_place)
    if conversions is None:
        voices: VoiceCache[VoiceRef] = VoiceCache(lambda ref: shelf.open_voice(ref, "cpu", cache, policy), 4)
        stages = LocalStages(ContentActor("cpu"), PitchActor("cpu"), voices, Turns(1))
        conversions = LocalConversions(StagedConverters(stages), spool, 1)

    @contextmanager
    def fetch(url: str) -> Iterator[Path]:
        with cache.get(UrlSource(url, policy, "audio")) as entry:
            yield entry.path

    board = JobBoard(spool.store, {"convert": ConvertRunner(conversions, spool, fetch)}, config.limits)
    return Services(config, spool, conversions, board, shelf, cache)


def small_config(folder: Path, **sections: Any) -> ServeConfig:
    """Everything below ``folder``."""
    defaults: dict[str, Any] = {
        "store": str(folder / "store"),
        "device": "cpu",
        "voices": {"library": str(folder / "home" / "voices"), "preload": []},
        "fetch": {"cache": str(folder / "cache"), **sections.pop("fetch", {})},
    }
    return ServeConfig.model_validate({**defaults, **sections})


@contextmanager
def serving_gateway(folder: Path, *, conversions: Conversions | None = None, **sections: Any) -> Iterator[Gateway]:
    """A gateway whose home (``small_home``) is ``folder/home``; by default its conversions are real.

    ``sections``: of the configuration.
    """
    with patch.dict("os.environ", {"ROCKTOP_HOME": str(folder / "home")}):
        config = small_config(folder, **sections)
        services = local_services(config, conversions)
        server = uvicorn.Server(uvicorn.Config(build_api(services), port=0, log_config=None, access_log=False))
        thread = threading.Thread(target=lambda: asyncio.run(_serve(server, services)), daemon=True)
        thread.start()
        while not server.started:
            if not thread.is_alive():
                raise RuntimeError("the gateway did not start")
            threading.Event().wait(0.01)
        port = server.servers[0].sockets[0].getsockname()[1]
        try:
            yield Gateway(f"http://127.0.0.1:{port}", services, config)
        finally:
            server.should_exit = True
            thread.join(20)


async def _serve(server: uvicorn.Server, services: Services) -> None:
    await services.jobs.start()
    try:
        await server.serve()
    finally:
        await services.jobs.close(1)


@pytest.fixture(name="gateway", scope="module")
def gateway_fixture(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """One for all tests that leave it as it was: voices ``anna`` (with an index) and ``berta``, no keys."""
    folder = tmp_path_factory.mktemp("gateway")
    small_home(folder / "home")
    with serving_gateway(folder, fetch={"trusted": ["127.0.0.1"]}) as running:
        yield running


@pytest.fixture(name="home")
def home_fixture(gateway: Gateway, tmp_path: Path) -> Path:
    """A folder for a gateway of its own, with the same voices and models."""
    shutil.copytree(Path(gateway.config.voices.library or "").parent, tmp_path / "home")
    return tmp_path
