"""A cache of downloads, and a server of objects that change and that count how often they were sent."""

from __future__ import annotations

import hashlib
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from http_server import Request, Running, conditional, fixed, reply, serving

from rocktop_ray.store.cache import ContentCache, Entry
from rocktop_ray.store.guarded_fetch import FetchPolicy
from rocktop_ray.store.sources import UrlSource

POLICY = FetchPolicy(trusted=("127.0.0.1",), total_seconds=90, idle_seconds=60)
WAV = b"RIFF\x24\x00\x00\x00WAVEfmt " + bytes(1000)


def source(url: str, **how: Any) -> UrlSource:
    return UrlSource(url, POLICY, **how)


def content(cache: ContentCache, url: str, **how: Any) -> tuple[bytes, Entry]:
    with cache.get(source(url, **how)) as entry:
        return entry.path.read_bytes(), entry


def leftovers(root: Path) -> list[Path]:
    return list((root / "parts").iterdir()) + list(root.rglob("*.part"))


class Changing:
    """An object that has a version, and counts how often its body was sent. It comes when ``go_on`` is set."""

    def __init__(self, data: bytes = WAV, pause: float = 0.0) -> None:
        self.data, self.pause, self.sent = data, pause, 0
        self.go_on = threading.Event()
        self.go_on.set()

    def __call__(self, link: socket.socket, request: Request) -> None:
        def body() -> bytes:
            self.sent += 1
            time.sleep(self.pause)
            self.go_on.wait(120)
            return self.data

        conditional(body, lambda: f'"{hashlib.sha256(self.data).hexdigest()}"')(link, request)


@pytest.fixture(name="voice")
def voice_fixture() -> Changing:
    return Changing()


@pytest.fixture(name="server")
def server_fixture(voice: Changing) -> Iterator[Running]:

    def block(link: socket.socket, request: Request) -> None:
        """1000 bytes, all the last character of the path."""
        link.sendall(reply(request.path[-1].encode() * 1000, ETag='"x"'))

    def signed(link: socket.socket, request: Request) -> None:
        if "good" in request.path:
            voice(link, request)
        else:
            link.sendall(reply(b"", status="403 Forbidden"))

    answers: dict[str, Any] = {
        "/voice": voice,
        "/signed": signed,
        "/plain": fixed(WAV),
        "/short": fixed(WAV, length=5000),
        "*": block,
    }
    with serving(answers) as running:
        yield running


@pytest.fixture(name="cache")
def cache_fixture(tmp_path: Path) -> ContentCache:
    return ContentCache(tmp_path / "cache", 10_000)
