"""The service as ``make serve`` starts it, with a port and a folder of its own for one measurement; gone afterwards."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from benchmarks.live.machine import Process, family, processes

READY_SECONDS = 180.0
_STOP_SECONDS = 60.0
_REPLICA = re.compile(r"ServeReplica:\w+:(\w+)")
PROXIES: dict[str, dict[str, str]] = {
    "python": {},
    "haproxy": {"RAY_SERVE_ENABLE_HA_PROXY": "1"},
    "throughput": {"RAY_SERVE_THROUGHPUT_OPTIMIZED": "1"},
    "both": {"RAY_SERVE_ENABLE_HA_PROXY": "1", "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1"},
}
"""What of Ray Serve's ways to bring a WebSocket to its replica."""


@dataclass(frozen=True)
class Service:
    """A service that answers."""

    url: str
    pid: int
    folder: Path
    ready_seconds: float

    @property
    def socket_url(self) -> str:
        """Where streams are."""
        return self.url.replace("http://", "ws://") + "/v1/stream"

    def processes(self, among: dict[int, Process] | None = None) -> list[Process]:
        """All that belongs to it. among: what runs on this machine, if that is known already."""
        return list(family(self.pid, processes() if among is None else among))

    def replicas(self, deployment: str, among: dict[int, Process] | None = None) -> list[int]:
        """Processes of a deployment's replicas that stand."""
        found = [process for process in self.processes(among) if role(process) == deployment]
        return [process.pid for process in found if "__init__" not in process.title]

    def kill(self, pid: int) -> None:
        """SIGKILL to one of its processes."""
        if pid in {process.pid for process in self.processes()}:
            os.kill(pid, signal.SIGKILL)

    def healthy(self) -> bool:
        """Whether it says that it is ready."""
        with suppress(httpx.TransportError):
            return httpx.get(f"{self.url}/readyz", timeout=10, trust_env=False).status_code == 200
        return False


def role(process: Process) -> str:
    """Name of a replica's deployment, or what else a process of Ray is there for."""
    found = _REPLICA.search(process.title)
    if found:
        return found[1]
    for mark, name in (
        ("ProxyActor", "proxy"),
        ("haproxy", "proxy"),
        ("HAProxy", "proxy"),
        ("Controller", "controller"),
    ):
        if mark in process.title:
            return name
    return "rest of Ray"


@contextmanager
def serving(changes: dict[str, Any], *, proxy: str = "python", placement: str = "fused") -> Iterator[Service]:
    """``rocktop-serve`` with the default configuration and ``changes`` while the block runs."""
    folder = Path(tempfile.mkdtemp(prefix="rl", dir="/tmp"))  # sockets' paths must stay below 107 characters
    port = _free_port()
    config = folder / "config.yaml"  # JSON is YAML
    config.write_text(
        json.dumps({"store": str(folder / "store"), "fetch": {"cache": str(folder / "cache")}, **changes})
    )
    command = [str(Path(sys.executable).with_name("rocktop-serve")), "--config", str(config), "--port", str(port)]
    began = time.perf_counter()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # who is told to end leaves no service behind
    with (folder / "log").open("wb") as log:
        server = subprocess.Popen(
            [*command, "--placement", placement, "--no-dashboard"],
            env={**os.environ, **_environment(folder), **PROXIES[proxy]},
            stdout=log,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            start_new_session=True,  # so that Ctrl-C here comes to us alone, and we stop it in order
        )
    url = f"http://127.0.0.1:{port}"
    service = Service(url, server.pid, folder, 0.0)
    try:
        while not service.healthy():
            if server.poll() is not None or time.perf_counter() - began > READY_SECONDS:
                raise RuntimeError(f"the service did not start:\n{(folder / 'log').read_text()[-3000:]}")
            time.sleep(0.25)
        yield Service(url, server.pid, folder, time.perf_counter() - began)
    finally:
        _stop(server)
        shutil.rmtree(folder, ignore_errors=True)


def _environment(folder: Path) -> dict[str, str]:
    own = {
        "RAY_TMPDIR": str(folder),
        "RAY_AUTH_MODE": os.environ.get("RAY_AUTH_MODE", "disabled"),
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_memory_monitor_refresh_ms": "0",
        # HAProxy's files and ports are the same for all of a machine otherwise.
        "RAY_SERVE_HAPROXY_CONFIG_FILE_LOC": str(folder / "ha" / "haproxy.cfg"),
        "RAY_SERVE_HAPROXY_SOCKET_PATH": str(folder / "ha" / "admin.sock"),
        "RAY_SERVE_HAPROXY_SERVER_STATE_BASE": str(folder / "ha"),
        "RAY_SERVE_HAPROXY_SERVER_STATE_FILE": str(folder / "ha" / "server-state"),
        "RAY_SERVE_HAPROXY_METRICS_PORT": str(_free_port()),
        "RAY_SERVE_HAPROXY_STATS_PORT": str(_free_port()),
    }
    (folder / "ha").mkdir()
    return own


def _stop(server: subprocess.Popen[bytes]) -> None:
    """As Ctrl-C does; whatever of it is left then is killed, by id."""
    mine = list(family(server.pid, processes()))
    if server.poll() is None:
        server.send_signal(signal.SIGINT)
        with suppress(subprocess.TimeoutExpired):
            server.wait(_STOP_SECONDS)
    deadline = time.monotonic() + 5
    while (left := _left(mine)) and time.monotonic() < deadline and server.poll() is not None:
        time.sleep(0.2)
    for process in left:
        with suppress(ProcessLookupError):
            os.kill(process.pid, signal.SIGKILL)
    server.wait(10)


def _left(mine: list[Process]) -> list[Process]:
    """Those that still run; another process that got the same id by now has another beginning."""
    now = processes()
    return [each for each in mine if each.pid in now and now[each.pid].began == each.began]


def _free_port() -> int:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return int(server.getsockname()[1])
