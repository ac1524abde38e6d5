"""A real ``mlflow server`` for tests, as a process on loopback: SQLite behind it, files in a folder or in S3."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path
from typing import Any

from free_ports import free_port
from s3_server import ACCESS_KEY, BUCKET, SECRET_KEY, _end_with_parent

QUIET = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_DISABLE_AGENT_HINT": "true",
    "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
}


class MlflowServer:
    """Started and killed at will; the database and the port stay the same."""

    def __init__(self, folder: Path, s3_endpoint: str | None = None) -> None:
        self._folder, self._s3 = folder, s3_endpoint
        self._port = free_port()
        self._process: subprocess.Popen[bytes] | None = None
        self.uri = f"http://127.0.0.1:{self._port}"

    def start(self, seconds: float = 200.0) -> None:
        files = f"s3://{BUCKET}/mlflow" if self._s3 else (self._folder / "files").as_uri()
        store = f"sqlite:///{self._folder / 'server.db'}"
        arguments = [
            *(sys.executable, "-m", "mlflow", "server", "--backend-store-uri", store, "--workers", "1"),
            *("--artifacts-destination", files, "--host", "127.0.0.1", "--port", str(self._port)),
        ]
        environment = {**os.environ, **QUIET, "OMP_NUM_THREADS": "1"}
        environment.pop("MLFLOW_TRACKING_URI", None)
        if self._s3:
            environment |= {
                "MLFLOW_S3_ENDPOINT_URL": self._s3,
                "AWS_ACCESS_KEY_ID": ACCESS_KEY,
                "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
                "AWS_DEFAULT_REGION": "us-east-1",
            }
        with (self._folder / "server.log").open("ab") as log:
            self._process = subprocess.Popen(
                arguments,
                stdout=log,
                stderr=log,
                cwd=self._folder,
                env=environment,
                start_new_session=True,
                preexec_fn=_end_with_parent,
            )
        end = time.monotonic() + seconds
        while time.monotonic() < end and self._process.poll() is None:
            try:
                with urllib.request.urlopen(f"{self.uri}/health", timeout=10):
                    return
            except OSError:
                time.sleep(0.1)
        self.kill()
        raise RuntimeError("mlflow server did not start:\n" + (self._folder / "server.log").read_text()[-3000:])

    def kill(self) -> None:
        """The server and its own workers, at once."""
        if self._process is not None and self._process.poll() is None:
            os.killpg(self._process.pid, 9)
            self._process.wait()

    def get(self, path: str, /, **query: Any) -> Any:
        """An answer of the web API."""
        address = f"{self.uri}/api/2.0/mlflow/{path}?{urllib.parse.urlencode(query)}"
        with urllib.request.urlopen(address, timeout=60) as answer:
            return json.load(answer)

    def post(self, path: str, /, **values: Any) -> Any:
        """An answer of the web API."""
        request = urllib.request.Request(
            f"{self.uri}/api/2.0/mlflow/{path}", json.dumps(values).encode(), {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.load(answer)

    def file(self, run_id: str, path: str) -> bytes:
        """A file of a run, as the web page fetches it."""
        query = urllib.parse.urlencode({"run_uuid": run_id, "path": path})
        with urllib.request.urlopen(f"{self.uri}/get-artifact?{query}", timeout=60) as answer:
            return answer.read()
