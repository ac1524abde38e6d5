"""Downloads kept by content: hits, change, damage, eviction."""

from __future__ import annotations

import hashlib
import json
import os
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest
from cache_parts import (  # noqa: F401
    POLICY,
    WAV,
    Changing,
    cache_fixture,
    content,
    leftovers,
    server_fixture,
    source,
    voice_fixture,
)
from http_server import Running, fixed

from rocktop_ray.errors import (
    RocktopError,
    SettingsError,
    UrlContentError,
    UrlForbiddenError,
    UrlRefusedError,
    UrlTooLargeError,
    UrlUnreachableError,
)
from rocktop_ray.store.cache import ContentCache
from rocktop_ray.store.sources import ObjectSource, UrlSource, without_signature
from rocktop_ray.store.storage import open_storage


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
