"""An HTTP server of weights that breaks in every way, for tests."""

from __future__ import annotations

import hashlib
import re
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rocktop_ray.store import download
from rocktop_ray.store.catalogue import Checked, Source, Weights

CONTENT = np.random.default_rng(7).bytes(1_500_000)
SHA = hashlib.sha256(CONTENT).hexdigest()
KNOWN = Checked(SHA, len(CONTENT))


class Server(ThreadingHTTPServer):
    """Serves ``CONTENT`` at every path, in the way that ``mode`` says; counts the requests."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.mode = "good"
        self.ranges: list[str | None] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    server: Server
    protocol_version = "HTTP/1.1"

    def log_message(self, *args: Any) -> None:
        pass

    def do_GET(self) -> None:
        mode, tries = self.server.mode, len(self.server.ranges)
        asked = self.headers.get("Range")
        self.server.ranges.append(asked)
        if mode == "missing" or (mode == "busy once" and tries == 0):
            self.send_error(404 if mode == "missing" else 503)
            return
        if mode == "redirect" and not self.path.startswith("/moved/"):
            self.answer(302, b"", {"Location": f"/moved{self.path}"})
            return
        if mode == "to a file":
            self.answer(302, b"", {"Location": "file:///etc/hostname"})
            return
        body = CONTENT[:-1] + b"x" if mode == "wrong" else CONTENT + b"more" if mode == "longer" else CONTENT
        if mode == "shorter":
            body = CONTENT[:-100]
        start = int(re.fullmatch(r"bytes=(\d+)-", asked)[1]) if asked and mode != "no ranges" else 0  # type: ignore[index]
        if start >= len(body):
            self.send_error(416)
            return
        headers = (
            {"Content-Range": f"bytes {start}-{len(body) - 1}/{len(body)}"} if asked and mode != "no ranges" else {}
        )
        if mode == "another range" and asked:
            headers["Content-Range"] = f"bytes {start + 1}-{len(body) - 1}/{len(body)}"
        cut = None
        if mode == "drops" and tries < 3:
            cut = start + 400_000
        if mode == "always drops":
            cut = start
        self.answer(206 if headers else 200, body[start:], headers, cut=None if cut is None else cut - start)

    def answer(self, status: int, body: bytes, headers: dict[str, str], cut: int | None = None) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        try:
            if self.server.mode == "stuck":
                self.wfile.write(body[:700_000])
                threading.Event().wait(120)
            else:
                self.wfile.write(body[:cut])
        except (BrokenPipeError, ConnectionResetError):
            pass
        self.close_connection = True


@pytest.fixture(name="server")
def server_fixture() -> Iterator[Server]:
    with Server() as running:
        thread = threading.Thread(target=running.serve_forever, args=(0.02,))
        thread.start()
        yield running
        running.shutdown()
        thread.join()


@pytest.fixture(name="home", autouse=True)
def home_fixture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ROCKTOP_HOME", str(tmp_path / "home"))
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(download.time, "sleep", lambda seconds: None)
    return tmp_path / "home" / "models"


def web(server: Server, name: str = "thing") -> Weights:
    return Weights(name, f"{name}.bin", "test", "MIT", Source(SHA, len(CONTENT), url=f"{server.url}/{name}.bin"))


def contents(folder: Path) -> list[str]:
    """What is in the folder, locks aside."""
    return sorted(path.name for path in folder.iterdir() if not path.name.endswith(".lock")) if folder.is_dir() else []
