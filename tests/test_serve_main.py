"""The command itself: up, answering, and gone without a trace when it is told to stop."""

from __future__ import annotations

import ipaddress
import os
import signal
import subprocess
import sys
from pathlib import Path

import httpx
import psutil
import pytest
import yaml
from free_ports import free_port
from serve_cluster import small_config, small_home

START = "from serve_apps.main import main; main()"


@pytest.mark.xdist_group("ray")
def test_the_command_serves_until_it_is_told_to_stop(tmp_path: Path) -> None:
    home, port = small_home(tmp_path / "home", ("anna",)), free_port()
    settings = tmp_path / "settings.yaml"
    settings.write_text(yaml.safe_dump(small_config(home).model_dump()))
    environment = {**os.environ, "ROCKTOP_HOME": str(home), "RAY_AUTH_MODE": "disabled"}
    process = subprocess.Popen(
        [sys.executable, "-c", START, "--port", str(port), "--config", str(settings), "--no-dashboard"],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        assert process.stdout is not None
        told = []
        for line in process.stdout:
            told.append(line.strip())
            if told[-1] == "stop with Ctrl-C":
                break
        shown = "\n".join(told)
        assert f"http://127.0.0.1:{port}/docs" in shown and "dashboard" not in shown, shown
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=120) as client:
            assert client.get("/readyz").json()["status"] == "ready"
            assert "anna" in client.get("/v1/voices").text
        family = psutil.Process(process.pid).children(recursive=True)
        assert len(family) > 3
        assert not _open_to_all(family)
        assert not [path for path in (home / "serve").rglob("*") if path.stat().st_mode & 0o077]
        process.send_signal(signal.SIGTERM)
        rest = process.communicate(timeout=120)[0]
        assert process.returncode == 0 and rest.split() == ["stopping", "...", "stopped"], rest
        _, alive = psutil.wait_procs(family, timeout=90)
        assert not [child for child in alive if child.status() != psutil.STATUS_ZOMBIE]
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)


def _open_to_all(processes: list[psutil.Process]) -> dict[str, int]:
    """Ports of these processes that other machines reach, but those of Serve's replicas: these ask for Ray's token."""
    found: dict[str, int] = {}
    for process in processes:
        if process.name().startswith("ray::ServeRepl"):
            continue
        for connection in process.net_connections("tcp"):
            if connection.status == psutil.CONN_LISTEN:
                address = ipaddress.ip_address(connection.laddr.ip)
                mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
                if not (mapped or address).is_loopback:
                    found[process.name()] = connection.laddr.port
    return found
