"""What the command does when the Ray under it is gone."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

WAIT = """
import threading
import ray
from rocktop_ray.errors import StageLostError
from serve_apps import main
ray.init(address="local", num_cpus=1, include_dashboard=False, log_to_driver=False, object_store_memory=100 << 20)
print("up", flush=True)
try:
    main._wait(threading.Event())
except StageLostError as error:
    print(error.message, flush=True)
"""


@pytest.mark.xdist_group("ray")
def test_a_dead_ray_ends_the_command(tmp_path: Path) -> None:
    quiet = {"RAY_AUTH_MODE": "disabled", "RAY_USAGE_STATS_ENABLED": "0", "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}
    with subprocess.Popen(
        [sys.executable, "-c", WAIT], env={**os.environ, **quiet}, stdout=subprocess.PIPE, text=True
    ) as process:
        family: list[psutil.Process] = []
        try:
            assert process.stdout is not None
            assert any(line.strip() == "up" for line in process.stdout)
            family = psutil.Process(process.pid).children(recursive=True)
            next(child for child in family if child.name() == "raylet").kill()
            said = process.communicate(timeout=200)[0]
            assert "start rocktop-serve again" in said
        finally:
            process.kill()
            for child in family:
                if child.is_running():
                    child.kill()
