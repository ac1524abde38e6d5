"""A service of its own for one measurement: its Ray, its port, its folders; gone afterwards."""

from __future__ import annotations

import os
import shutil
import socket
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from serve_apps.config import ServeConfig

APPLICATION = "rocktop"
_MARK = "ROCKTOP_BENCH"
_READY_SECONDS = 120.0


@dataclass(frozen=True)
class Service:
    """A service that answers."""

    url: str
    folder: Path
    mark: str
    converter: Any
    """Handle of the deployment that carries out orders."""
    ready_seconds: float
    """From ``serve.run`` to the first ready answer."""

    def memory(self) -> dict[str, float]:
        """MiB of every replica by name of its deployment, shared pages counted by their share."""
        found: dict[str, float] = {}
        for name, process in _processes(self.mark):
            if name.startswith("ray::ServeReplica:"):
                deployment = name.removeprefix("ray::ServeReplica:").split(":")[1].split(".")[0]
                found[deployment] = found.get(deployment, 0.0) + _mib(process)
        return found


@contextmanager
def serving(**changes: Any) -> Iterator[Service]:
    """The service with the default configuration and ``changes``, while the block runs."""
    import ray
    from ray import serve

    from serve_apps.app import build_app

    folder = Path(tempfile.mkdtemp(prefix="rb", dir="/tmp"))  # sockets' paths must stay below 107 characters
    mark = uuid.uuid4().hex
    os.environ.update(
        {
            _MARK: mark,
            "RAY_AUTH_MODE": "disabled",
            "RAY_USAGE_STATS_ENABLED": "0",
            "RAY_memory_monitor_refresh_ms": "0",
            "PYTHONPATH": os.pathsep.join([str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")]),
        }
    )
    try:
        ray.init(
            address="local",
            num_cpus=os.cpu_count(),
            include_dashboard=False,
            object_store_memory=200 << 20,
            _temp_dir=str(folder / "r"),
            log_to_driver=False,
            logging_level="warning",
        )
        port = _free_port()
        serve.start(http_options={"host": "127.0.0.1", "port": port, "request_timeout_s": None})
        began = time.perf_counter()
        config = ServeConfig.model_validate(
            {"store": str(folder / "store"), "fetch": {"cache": str(folder / "cache")}, **changes}
        )
        serve.run(build_app(config), name=APPLICATION, route_prefix="/")
        url = f"http://127.0.0.1:{port}"
        _wait(url)
        ready = time.perf_counter() - began
        yield Service(url, folder, mark, serve.get_deployment_handle("Converter", APPLICATION), ready)
    finally:
        if ray.is_initialized():
            serve.shutdown()
            ray.shutdown()
        shutil.rmtree(folder, ignore_errors=True)


def _wait(url: str) -> None:
    """Until the service says that it is ready."""
    deadline = time.monotonic() + _READY_SECONDS
    while time.monotonic() < deadline:
        try:
            if httpx.get(f"{url}/readyz", timeout=10).status_code == 200:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.2)
    raise RuntimeError(f"the service is not ready after {_READY_SECONDS:.0f} s")


def _free_port() -> int:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return int(server.getsockname()[1])


def _processes(mark: str) -> Iterator[tuple[str, Path]]:
    """Name and /proc folder of the processes that this Ray began."""
    needle = f"{_MARK}={mark}".encode()
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if needle in (process / "environ").read_bytes():
                yield (process / "cmdline").read_bytes().split(b"\0")[0].decode("utf-8", "replace"), process
        except OSError:
            continue


def _mib(process: Path) -> float:
    try:
        lines = (process / "smaps_rollup").read_text().splitlines()
    except OSError:
        return 0.0
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith("Pss:")), 0.0)
