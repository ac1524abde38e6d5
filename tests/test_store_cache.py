"""Downloads kept by content: hits, change, damage, eviction, and many processes at once, some of them killed."""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from http_server import Request, Running, conditional, fixed, reply, serving

from rocktop_ray.errors import (
    RocktopError,
    SettingsError,
    StorageTimeoutError,
    UrlContentError,
    UrlForbiddenError,
    UrlRefusedError,
    UrlTooLargeError,
    UrlUnreachableError,
)
from rocktop_ray.store.cache import ContentCache, Entry
from rocktop_ray.store.guarded_fetch import FetchPolicy
from rocktop_ray.store.sources import ObjectSource, UrlSource, without_signature
from rocktop_ray.store.storage import open_storage

POLICY = FetchPolicy(trusted=("127.0.0.1",), total_seconds=20, idle_seconds=10)
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


@pytest.fixture
def voice() -> Changing:
    return Changing()


@pytest.fixture
def server(voice: Changing) -> Iterator[Running]:

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


@pytest.fixture
def cache(tmp_path: Path) -> ContentCache:
    return ContentCache(tmp_path / "cache", 10_000)


def test_hit_miss_and_change(cache: ContentCache, server: Running, voice: Changing) -> None:
    url = server.url("/voice")
    data, entry = content(cache, url)
    assert data == WAV and entry.found == "miss" and entry.sha256 == hashlib.sha256(WAV).hexdigest()
    assert entry.path.stat().st_mode & 0o222 == 0
    for _ in range(3):
        data, entry = content(cache, url)
        assert data == WAV and entry.found == "hit"
    assert voice.sent == 1 and server.count("/voice") == 4
    voice.data = WAV + b"new"
    data, entry = content(cache, url)
    assert data == WAV + b"new" and entry.found == "miss" and voice.sent == 2
    stats = cache.stats()
    assert (stats.hits, stats.misses, stats.changed) == (3, 2, 1)
    assert stats.hit_rate == pytest.approx(0.6)
    assert stats.fetched_bytes == 2 * len(WAV) + 3 and stats.served_bytes == 3 * len(WAV)
    assert stats.entries == 2 and stats.bytes == 2 * len(WAV) + 3
    assert leftovers(cache.root) == []


def test_kept_over_restarts(cache: ContentCache, server: Running, voice: Changing) -> None:
    content(cache, server.url("/voice"))
    assert content(ContentCache(cache.root, 10_000), server.url("/voice"))[1].found == "hit"
    assert voice.sent == 1


def test_a_new_signature_is_the_same_object(cache: ContentCache, server: Running, voice: Changing) -> None:
    for number in range(3):
        link = server.url(f"/signed?X-Amz-Date=2026112{number}T000000Z&X-Amz-Expires=60&X-Amz-Signature=good{number}")
        assert content(cache, link)[0] == WAV
    assert voice.sent == 1 and cache.stats().hits == 2
    with pytest.raises(UrlForbiddenError):  # kept, but not for who may not read it
        content(cache, server.url("/signed?X-Amz-Date=20261120T000000Z&X-Amz-Expires=60&X-Amz-Signature=bad"))


def test_a_server_without_versions_is_always_asked_for_all(cache: ContentCache, server: Running) -> None:
    assert content(cache, server.url("/plain"))[1].found == "miss"
    server.answers["/plain"] = fixed(WAV[::-1])
    data, entry = content(cache, server.url("/plain"))
    assert data == WAV[::-1] and entry.found == "miss"
    content(cache, server.url("/plain"))
    assert cache.stats().changed == 1


def test_the_same_content_is_kept_once(cache: ContentCache, server: Running) -> None:
    first, second = content(cache, server.url("/plain"))[1], content(cache, server.url("/voice"))[1]
    assert first.path == second.path and cache.stats().entries == 1


def test_only_keys_without_secrets_are_kept(cache: ContentCache, server: Running) -> None:
    content(cache, server.url("/signed?X-Amz-Signature=good-secret"))
    for path in cache.root.rglob("*"):
        assert "good-secret" not in path.name and (path.is_dir() or b"good-secret" not in path.read_bytes())


@pytest.mark.parametrize("damage", ["bytes", "size", "gone", "reference"])
def test_damage_is_noticed_and_mended(cache: ContentCache, server: Running, voice: Changing, damage: str) -> None:
    path = content(cache, server.url("/voice"))[1].path
    if damage == "gone":
        path.unlink()
    elif damage == "reference":
        next((cache.root / "refs").glob("??/*")).write_text('{"sha256": "../../../etc/passwd", "bytes": 1}')
    else:
        path.chmod(0o644)
        path.write_bytes(b"X" + WAV[1:] if damage == "bytes" else WAV[:-1])
    data, entry = content(cache, server.url("/voice"))
    assert data == WAV and entry.found == "miss" and voice.sent == 2
    assert cache.stats().corrupt == (damage in ("bytes", "size"))


def test_damage_done_while_nobody_ran_is_noticed(cache: ContentCache, server: Running, voice: Changing) -> None:
    path = content(cache, server.url("/voice"))[1].path
    before = path.stat()
    path.chmod(0o644)
    path.write_bytes(b"X" + WAV[1:])
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert content(ContentCache(cache.root, 10_000), server.url("/voice"))[0] == WAV


def test_odd_addresses_are_refused(cache: ContentCache) -> None:
    for url in ("http://[bad", "file:///etc/passwd", "http://10.0.0.1/x", ""):
        with pytest.raises(UrlRefusedError), cache.get(source(url)):
            pass
    with cache.get(source("data:,content")) as entry:
        assert entry.path.read_bytes() == b"content"


def test_failures_leave_nothing(cache: ContentCache, server: Running) -> None:
    for path, error in (("/short", UrlUnreachableError), ("/signed", UrlForbiddenError)):
        with pytest.raises(error):
            content(cache, server.url(path))
    with pytest.raises(UrlContentError):
        content(cache, server.url("/plain"), expect="voice")
    assert cache.stats().entries == 0 and leftovers(cache.root) == []


def test_wishes_hold_for_kept_files_too(cache: ContentCache, server: Running) -> None:
    content(cache, server.url("/voice"))
    with pytest.raises(UrlContentError, match="found an audio file"):
        content(cache, server.url("/voice"), expect="voice")
    with pytest.raises(UrlTooLargeError), cache.get(UrlSource(server.url("/voice"), replace(POLICY, max_bytes=10))):
        pass
    assert content(cache, server.url("/voice"), expect="audio")[1].found == "hit"


def test_the_longest_unused_goes_first(server: Running, tmp_path: Path) -> None:
    cache = ContentCache(tmp_path, 3500)
    for name in "abc":
        content(cache, server.url(f"/{name}"))
    content(cache, server.url("/a"))  # same ETag and length: not sent again
    content(cache, server.url("/d"))
    assert (cache.stats().evictions, cache.stats().evicted_bytes, cache.stats().bytes) == (1, 1000, 3000)
    assert [content(cache, server.url(f"/{name}"))[1].found for name in "acd"] == ["hit"] * 3
    assert content(cache, server.url("/b"))[1].found == "miss"


def test_what_is_in_use_stays(server: Running, tmp_path: Path) -> None:
    cache = ContentCache(tmp_path, 2500)
    with ExitStack() as using:
        held = [using.enter_context(cache.get(source(server.url(f"/{name}")))) for name in "abcd"]
        assert cache.stats().bytes == 4000 and cache.stats().evictions == 0
        assert [entry.path.read_bytes()[:1] for entry in held] == [b"a", b"b", b"c", b"d"]
    assert cache.stats().bytes <= 2500 and cache.stats().evictions == 2


def test_what_is_larger_than_the_cache_is_refused(server: Running, tmp_path: Path) -> None:
    cache = ContentCache(tmp_path, 999)
    with pytest.raises(UrlTooLargeError):
        content(cache, server.url("/a"))
    assert cache.stats().entries == 0 and leftovers(tmp_path) == []
    with pytest.raises(SettingsError):
        ContentCache(tmp_path, 0)


def test_objects_of_a_store(cache: ContentCache, tmp_path: Path) -> None:
    store = open_storage(tmp_path / "store")
    store.write("voices/a.pth", b"one")
    for found in ("miss", "hit"):
        with cache.get(ObjectSource(store, "voices/a.pth")) as entry:
            assert (entry.path.read_bytes(), entry.found) == (b"one", found)
    store.write("voices/a.pth", b"two")
    with cache.get(ObjectSource(store, "voices/a.pth")) as entry:
        assert (entry.path.read_bytes(), entry.found) == (b"two", "miss")
    store.write("big", bytes(20_000))
    with pytest.raises(UrlTooLargeError), cache.get(ObjectSource(store, "big")):
        pass
    with pytest.raises(RocktopError), cache.get(ObjectSource(store, "absent")):
        pass


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


# processes

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


def test_references_are_bounded(cache: ContentCache, server: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rocktop_ray.store.cache._REFS_PER_FOLDER", 1)
    for number in range(80):  # into 256 folders: some meet
        content(cache, server.url(f"/plain?n={number}"))
    folders = list((cache.root / "refs").iterdir())
    assert len(folders) < 80 and all(len(list(folder.iterdir())) == 1 for folder in folders)
    assert json.loads(next(folders[0].iterdir()).read_text())["sha256"] == hashlib.sha256(WAV).hexdigest()


@pytest.mark.parametrize(
    ("url", "key"),
    [
        ("https://H.org/a?X-Amz-Signature=1&versionId=2&x-amz-date=3", "https://h.org/a?versionId=2"),
        ("https://h.org/a?X-Goog-Signature=1#part", "https://h.org/a"),
        ("https://h.org/a?AWSAccessKeyId=1&Signature=2&Expires=3&v=4", "https://h.org/a?v=4"),
        ("https://h.org/a?sv=1&se=2&sig=3&comp=x", "https://h.org/a?comp=x"),
        ("https://h.org/a?Policy=1&Signature=2&Key-Pair-Id=3", "https://h.org/a"),
        ("https://h.org/a?policy=1&expires=3&sp=2&se=1", "https://h.org/a?policy=1&expires=3&sp=2&se=1"),
        ("https://h.org/A?b=%20c+d&&e", "https://h.org/A?b=%20c+d&&e"),
    ],
)
def test_signatures_are_not_part_of_the_key(url: str, key: str) -> None:
    assert without_signature(url) == key
