"""One cache of downloads for many threads and processes, some of them killed."""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import signal
import socket
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from cache_parts import (  # noqa: F401
    WAV,
    Changing,
    cache_fixture,
    content,
    leftovers,
    server_fixture,
    source,
    voice_fixture,
)
from http_server import Request, Running, reply

from rocktop_ray.errors import RocktopError, StorageTimeoutError
from rocktop_ray.store.cache import ContentCache


def test_threads_share_one_download(cache: ContentCache, server: Running, voice: Changing) -> None:
    voice.pause = 0.3
    with ThreadPoolExecutor(8) as pool:
        got = list(pool.map(lambda _: content(cache, server.url("/voice")), range(8)))
    assert voice.sent == 1 and all(data == WAV for data, _ in got)
    assert sorted(entry.found for _, entry in got) == ["hit"] * 7 + ["miss"]


def test_different_sources_do_not_wait_for_each_other(cache: ContentCache, server: Running, voice: Changing) -> None:
    voice.go_on.clear()
    slow = threading.Thread(target=content, args=(cache, server.url("/voice")))
    slow.start()
    until(lambda: voice.sent == 1)
    content(cache, server.url("/a"))
    assert slow.is_alive() and not voice.go_on.is_set()
    voice.go_on.set()
    slow.join()


SPAWN = multiprocessing.get_context("spawn")


def child(root: Path, url: str, then: str, answers: Any) -> None:
    """In another process: get, and report; ``then``: ``go``, or ``hold`` the entry until told to stop by a signal."""
    cache = ContentCache(root, 10_000)
    try:
        with cache.get(source(url)) as entry:
            answers.put((entry.found, hashlib.sha256(entry.path.read_bytes()).hexdigest()))
            if then == "hold":
                time.sleep(600)
    except RocktopError as error:
        answers.put((error.code, ""))


def start_child(root: Path, url: str, then: str = "go") -> tuple[Any, Any]:
    answers = SPAWN.SimpleQueue()
    process = SPAWN.Process(target=child, args=(root, url, then, answers), daemon=True)
    process.start()
    return process, answers


def until(true: Callable[[], bool], seconds: float = 90.0) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.02)


def test_processes_share_one_download(cache: ContentCache, server: Running, voice: Changing) -> None:
    voice.pause = 0.5
    children = [start_child(cache.root, server.url("/voice")) for _ in range(4)]
    results = [answers.get() for _, answers in children]
    for process, _ in children:
        process.join(60)
    assert voice.sent == 1
    assert {digest for _, digest in results} == {hashlib.sha256(WAV).hexdigest()}
    assert sorted(found for found, _ in results) == ["hit"] * 3 + ["miss"]


def test_a_killed_download_blocks_nobody_and_leaves_nothing(
    cache: ContentCache, server: Running, voice: Changing, monkeypatch: pytest.MonkeyPatch
) -> None:
    def half(link: socket.socket, request: Request) -> None:
        link.sendall(reply(WAV, ETag='"e"')[:-500])
        time.sleep(240)

    server.answers["/half"] = half
    process, _ = start_child(cache.root, server.url("/half"))
    until(
        lambda: any(path.stat().st_size > 0 for path in (cache.root / "parts").iterdir()) or server.count("/half") > 0
    )
    until(lambda: bool(leftovers(cache.root)))
    os.kill(process.pid, signal.SIGKILL)
    process.join(60)
    server.answers["/half"] = voice
    start = time.monotonic()
    assert content(cache, server.url("/half"))[0] == WAV
    assert time.monotonic() - start < 60
    assert len(leftovers(cache.root)) == 1  # the killed one's part, until it is old
    monkeypatch.setattr("rocktop_ray.store.cache._STALE_SECONDS", 0.0)
    content(cache, server.url("/a"))
    assert leftovers(cache.root) == []


def test_an_entry_that_another_process_uses_stays_until_it_dies(server: Running, tmp_path: Path) -> None:
    process, answers = start_child(tmp_path, server.url("/a"), "hold")
    assert answers.get()[0] == "miss"
    cache = ContentCache(tmp_path, 1500)
    kept = tmp_path / "blobs" / hashlib.sha256(b"a" * 1000).hexdigest()[:2] / hashlib.sha256(b"a" * 1000).hexdigest()
    for name in "bcb":
        content(cache, server.url(f"/{name}"))
        assert kept.exists()
    os.kill(process.pid, signal.SIGKILL)
    process.join(60)
    content(cache, server.url("/d"))
    assert not kept.exists() and cache.stats().bytes == 1000


def test_waiting_has_an_end(cache: ContentCache, server: Running, voice: Changing) -> None:
    voice.go_on.clear()
    slow = threading.Thread(target=content, args=(cache, server.url("/voice")))
    slow.start()
    until(lambda: server.count("/voice") == 1)
    with pytest.raises(StorageTimeoutError) as caught:
        content(ContentCache(cache.root, 10_000, wait_seconds=0.2), server.url("/voice"))
    assert caught.value.retryable
    voice.go_on.set()
    slow.join()


def test_many_at_once_with_little_room(server: Running, tmp_path: Path) -> None:
    """Eviction races with use: every reader must see the right bytes for as long as it holds the entry."""
    caches = [ContentCache(tmp_path, 2500) for _ in range(3)]

    def work(number: int) -> bool:
        name = "abcdef"[number % 6]
        with caches[number % 3].get(source(server.url(f"/{name}"))) as entry:
            time.sleep(0.002 * (number % 4))
            return entry.path.read_bytes() == name.encode() * 1000

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(work, range(150)))
    content(caches[0], server.url("/a"))
    assert caches[0].stats().bytes <= 2500 and leftovers(tmp_path) == []
