"""A gateway whose RunPod endpoints work, over small networks, in this process."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

from gateway_server import Gateway, serving_gateway
from nano_parts import Parts, parts

from serve_apps.jobs.board import JobBoard
from serve_apps.nano.runner import NanoRunner
from serve_apps.nano.states import KIND
from serve_apps.services import Services


def services(made: Parts) -> Services:
    runner = NanoRunner.build(made.config, made.conversions, made.spool, made.cache, made.shelf, lambda: board)
    board = JobBoard(made.spool.store, {KIND: runner}, made.config.limits)
    return Services(made.config, made.spool, made.conversions, board, made.shelf, made.cache)


@contextmanager
def runpod_service(folder: Path, **config: Any) -> Iterator[Gateway]:
    """``config``: sections of ``ServeConfig``. No S3, whatever the environment says."""
    names = ("S3_ENDPOINT_URL", "S3_ACCESS_KEY", "S3_SECRET_KEY", "S3_BUCKET_NAME")
    with (
        patch.dict("os.environ", {**dict.fromkeys(names, ""), "NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1"}),
        serving_gateway(folder, services(parts(folder, **config))) as gateway,
    ):
        yield gateway
