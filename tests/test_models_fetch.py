"""Fetching weights over HTTP: a server that breaks in every way, real kills."""

from __future__ import annotations

import errno
import http.client
import os
import signal
import ssl
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from weights_server import CONTENT, SHA, Server, contents, home_fixture, server_fixture, web  # noqa: F401

from rocktop_ray.errors import FetchError, SettingsError, StorageError
from rocktop_ray.store import fetch as fetch_module
from rocktop_ray.store.catalogue import Source
from rocktop_ray.store.fetch import fetch


@pytest.mark.parametrize("mode", ["good", "drops", "busy once", "redirect", "no ranges"])
def test_arrives_whole(mode: str, server: Server, home: Path) -> None:
    server.mode = mode
    seen: list[tuple[int, int]] = []
    path = fetch(web(server), progress=lambda done, total: seen.append((done, total)))
    assert path.read_bytes() == CONTENT
    assert contents(home) == ["thing.bin"]
    assert seen[-1] == (len(CONTENT), len(CONTENT))
    if mode == "drops":
        assert server.ranges == [None, *(f"bytes={n}-" for n in (400_000, 800_000, 1_200_000))]


def test_an_installed_file_is_left_alone_unless_forced(server: Server) -> None:
    path = fetch(web(server))
    path.write_bytes(b"mine")
    assert fetch(web(server)).read_bytes() == b"mine"
    assert len(server.ranges) == 1
    assert fetch(web(server), force=True).read_bytes() == CONTENT


@pytest.mark.parametrize(
    ("mode", "words", "kept"),
    [
        ("missing", "404", False),
        ("wrong", "checksum", False),
        ("longer", "more than", False),
        ("shorter", "ended after|416", True),
        ("always drops", "ended after 0", True),
        ("to a file", "302", False),
    ],
)
def test_a_bad_server_leaves_no_file(mode: str, words: str, kept: bool, server: Server, home: Path) -> None:
    server.mode = mode
    with pytest.raises(FetchError, match=words):
        fetch(web(server))
    left = [] if not kept else [".thing.bin.part"]
    assert [name for name in contents(home) if name != ".thing.bin.part"] == []
    assert set(contents(home)) <= set(left)
    server.mode = "good"
    assert fetch(web(server)).read_bytes() == CONTENT


@pytest.mark.parametrize("mode", ["good", "no ranges"])
def test_goes_on_where_it_stopped(mode: str, server: Server, home: Path) -> None:
    home.mkdir(parents=True)
    (home / ".thing.bin.part").write_bytes(CONTENT[:1_000_000])
    server.mode = mode
    assert fetch(web(server)).read_bytes() == CONTENT
    assert server.ranges == ["bytes=1000000-"]


def test_another_range_is_not_glued(server: Server, home: Path) -> None:
    home.mkdir(parents=True)
    (home / ".thing.bin.part").write_bytes(CONTENT[:1_000_000])
    server.mode = "another range"
    with pytest.raises(FetchError, match="another range"):
        fetch(web(server))
    assert contents(home) == [".thing.bin.part"]


@pytest.mark.parametrize("left", [b"z" * 1_000_000, b"z" * len(CONTENT), b"z" * (len(CONTENT) + 5)])
def test_a_wrong_beginning_is_fetched_afresh(left: bytes, server: Server, home: Path) -> None:
    home.mkdir(parents=True)
    (home / ".thing.bin.part").write_bytes(left)
    assert fetch(web(server)).read_bytes() == CONTENT


def test_no_server(server: Server) -> None:
    weights = replace(web(server), source=Source(SHA, len(CONTENT), url="http://127.0.0.1:9/x"))
    with pytest.raises(FetchError, match="cannot connect") as caught:
        fetch(weights)
    assert caught.value.retryable


def test_a_break_inside_tls_is_no_fault_of_the_disk(
    server: Server, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(self: http.client.HTTPResponse, amount: int) -> bytes:
        raise ssl.SSLError(1, "record layer failure")

    monkeypatch.setattr(http.client.HTTPResponse, "read", broken)
    with pytest.raises(FetchError, match="the connection broke") as caught:
        fetch(web(server))
    assert caught.value.retryable


def test_a_killed_download_is_resumed(server: Server, home: Path) -> None:
    server.mode = "stuck"
    source = f"Source({SHA!r}, {len(CONTENT)}, url={server.url + '/thing.bin'!r})"
    code = (
        "from rocktop_ray.store.catalogue import Source, Weights; from rocktop_ray.store.fetch import fetch;"
        f"fetch(Weights('thing', 'thing.bin', '', '', {source}))"
    )
    process = subprocess.Popen([sys.executable, "-c", code], env={**os.environ, "ROCKTOP_HOME": str(home.parent)})
    part = home / ".thing.bin.part"
    deadline = time.monotonic() + 60
    while not (part.exists() and part.stat().st_size >= 200_000) and time.monotonic() < deadline:
        threading.Event().wait(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (home / "thing.bin").exists()
    size = part.stat().st_size
    assert 200_000 <= size < len(CONTENT)
    server.mode = "good"
    assert fetch(web(server)).read_bytes() == CONTENT
    assert server.ranges[-1] == f"bytes={size}-"


def test_two_processes_download_once(server: Server) -> None:
    weights = web(server)
    results: list[Path] = []
    threads = [threading.Thread(target=lambda: results.append(fetch(weights))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 4
    assert len(server.ranges) == 1


class FullDisk:
    """A file that takes 300,000 bytes and then no more."""

    def __init__(self, file: Any) -> None:
        self.file, self.left = file, 300_000

    def __enter__(self) -> FullDisk:
        return self

    def __exit__(self, *error: object) -> None:
        self.file.close()

    def seek(self, position: int) -> int:
        return int(self.file.seek(position))

    def flush(self) -> None:
        self.file.flush()

    def write(self, data: bytes) -> int:
        self.left -= len(data)
        if self.left < 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        return int(self.file.write(data))


def test_a_full_disk_leaves_nothing(server: Server, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usual = Path.open

    def opened(self: Path, mode: str = "r", *args: Any, **options: Any) -> Any:
        file = usual(self, mode, *args, **options)
        return FullDisk(file) if self.name.endswith(".part") and mode == "wb" else file

    monkeypatch.setattr(Path, "open", opened)
    with pytest.raises(StorageError, match="no space left"):
        fetch(web(server))
    assert contents(home) == []


def test_too_little_space_is_said_before_the_download(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = type("Usage", (), {"free": 1000})()
    monkeypatch.setattr(fetch_module.shutil, "disk_usage", lambda path: usage)
    with pytest.raises(StorageError, match="needs 2 MB of free space"):
        fetch(web(server))
    assert server.ranges == []


def test_a_folder_that_cannot_be_made(server: Server, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StorageError):
        fetch(web(server), folder=tmp_path / "file" / "models")


def test_a_mirror_replaces_the_address(server: Server) -> None:
    weights = replace(web(server), source=Source(SHA, len(CONTENT), url="http://127.0.0.1:9/never"))
    assert fetch(weights, mirror=server.url + "/some/where/").read_bytes() == CONTENT
    with pytest.raises(SettingsError, match="http"):
        fetch(weights, mirror="file:///tmp")
