"""A gateway whose RunPod and TorchServe routes work over small networks, in this process, on a free loopback port."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

import httpx
import uvicorn
from nano_parts import Parts, parts

from serve_apps.gateway.app import build_api
from serve_apps.jobs.board import JobBoard
from serve_apps.nano.runner import NanoRunner
from serve_apps.nano.states import KIND
from serve_apps.services import Services

_S3 = ("S3_ENDPOINT_URL", "S3_ACCESS_KEY", "S3_SECRET_KEY", "S3_BUCKET_NAME")


@dataclass
class Running:
    url: str
    made: Parts

    def client(self, **options: Any) -> httpx.Client:
        return httpx.Client(base_url=self.url, timeout=120, trust_env=False, **options)


@contextmanager
def runpod_service(folder: Path, environment: dict[str, str] | None = None, **config: Any) -> Iterator[Running]:
    """``config``: sections of ``ServeConfig``. No S3, unless ``environment`` sets it up."""
    settings = {**dict.fromkeys(_S3, ""), "ROCKTOP_HOME": str(folder / "home"), **(environment or {})}
    with patch.dict("os.environ", settings):
        made = parts(folder, **config)
        runner = NanoRunner.build(made.config, made.conversions, made.spool, made.cache, made.shelf, lambda: board)
        board = JobBoard(made.spool.store, {KIND: runner}, made.config.limits)
        services = Services(made.config, made.spool, made.conversions, board, made.shelf, made.cache)
        server = uvicorn.Server(uvicorn.Config(build_api(services), port=0, log_config=None, access_log=False))

        async def serve() -> None:
            await board.start()
            try:
                await server.serve()
            finally:
                await board.close(1)

        thread = threading.Thread(target=lambda: asyncio.run(serve()), daemon=True)
        thread.start()
        while not server.started:
            assert thread.is_alive(), "the gateway did not start"
            thread.join(0.01)
        try:
            yield Running(f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}", made)
        finally:
            server.should_exit = True
            thread.join(20)
