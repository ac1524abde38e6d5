"""The gateway with live sessions over real WebSockets, on a free loopback port: very small voices, in this process."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import uvicorn
from gateway_server import local_services, small_config
from live_voices import TinyVoices
from serve_cluster import small_home

from serve_apps.config import ServeConfig
from serve_apps.gateway.app import build_api
from serve_apps.live.compute.local import LocalEngine
from serve_apps.live.desk import LocalDesk


@dataclass
class LiveServer:
    port: int
    engine: LocalEngine
    desk: LocalDesk
    config: ServeConfig
    loop: asyncio.AbstractEventLoop

    @property
    def url(self) -> str:
        return f"ws://127.0.0.1:{self.port}/v1/stream"


@contextmanager
def serving_live(folder: Path, **sections: Any) -> Iterator[LiveServer]:
    """``sections``: of the configuration. Voices: ``anna`` and ``berta``."""
    if not (folder / "home").exists():
        small_home(folder / "home")
    with patch.dict("os.environ", {"ROCKTOP_HOME": str(folder / "home")}):
        config = small_config(folder, **sections)
        engine, desk = LocalEngine(TinyVoices(), config.live), LocalDesk(config.live)
        api = build_api(replace(local_services(config), live=engine, desk=desk))
        server = uvicorn.Server(
            uvicorn.Config(api, port=0, log_config=None, access_log=False, timeout_graceful_shutdown=2)
        )
        loop = asyncio.new_event_loop()
        thread = threading.Thread(target=lambda: loop.run_until_complete(server.serve()), daemon=True)
        thread.start()
        while not server.started:
            if not thread.is_alive():
                raise RuntimeError("the gateway did not start")
            threading.Event().wait(0.01)
        try:
            yield LiveServer(server.servers[0].sockets[0].getsockname()[1], engine, desk, config, loop)
        finally:
            server.should_exit = True
            thread.join(60)
            engine.close()
