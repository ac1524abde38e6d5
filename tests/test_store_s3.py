"""A real S3 server, and one that is ill."""

from __future__ import annotations

import logging
import os
import socket
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from http_server import Request, Running, fixed, reply, serving

from rocktop_ray.errors import (
    BucketMissingError,
    ObjectChangedError,
    SettingsError,
    StorageDeniedError,
    StorageError,
    StorageTimeoutError,
    StorageUnavailableError,
)
from rocktop_ray.store.settings import StorageSettings
from rocktop_ray.store.storage import Storage, link, open_storage

pytest.importorskip("boto3", reason="S3 tests need boto3: pip install 'rocktop-ray[s3]'")
from s3_server import ACCESS_KEY, BUCKET, SECRET_KEY, Server
from stores import ILL, SILENT, s3_settings_fixture, store_fixture  # noqa: F401

pytestmark = pytest.mark.xdist_group("s3")


# the real server


def test_large_files_go_in_parts(s3_settings: StorageSettings, tmp_path: Path) -> None:
    store = open_storage(f"s3://{BUCKET}/large", replace(s3_settings, part_bytes=5 << 20))
    data = os.urandom(12 << 20)
    (tmp_path / "source").write_bytes(data)
    made = store.put_file("voice.pth", tmp_path / "source")
    assert made.etag.endswith("-3") and made.bytes == len(data)
    assert store.copy("voice.pth", "copy.pth").bytes == len(data)
    store.get_file("copy.pth", tmp_path / "target")
    assert (tmp_path / "target").read_bytes() == data


def test_signed_links(s3_settings: StorageSettings) -> None:
    store = open_storage(f"s3://{BUCKET}/links", s3_settings)
    store.write("a b/take.ogg", b"OggS")
    signed = link(store, "a b/take.ogg", 60)
    assert SECRET_KEY not in signed and "X-Amz-Expires=60" in signed
    with urllib.request.urlopen(signed, timeout=60) as answer:
        assert answer.read() == b"OggS" and answer.headers["Content-Type"] == "audio/ogg"
    for seconds in (0, -1, 7 * 86400 + 1):
        with pytest.raises(SettingsError):
            store.presigned_get("a", seconds)


def asks(store: Storage) -> list[Callable[[str], object]]:
    return [store.stat, store.exists, store.read, lambda key: store.write(key, b""), lambda key: list(store.list())]


def test_buckets_and_keys_that_are_wrong(s3: Server, s3_settings: StorageSettings) -> None:
    for ask in asks(open_storage("s3://no-such-bucket/x", s3_settings)):
        with pytest.raises(BucketMissingError) as caught:
            ask("a")
        assert not caught.value.retryable
    for wrong in ({"secret_key": "other-secret"}, {"access_key": "other-id"}):
        for ask in asks(open_storage(f"s3://{BUCKET}/x", replace(s3_settings, **wrong))):
            with pytest.raises(StorageDeniedError) as denial:
                ask("a")
            assert not denial.value.retryable
            for secret in (SECRET_KEY, ACCESS_KEY, "other-secret", "other-id"):
                assert secret not in denial.value.message
            assert denial.value.__cause__ is None and denial.value.__suppress_context__


def test_a_replaced_object_is_noticed_while_reading(s3_settings: StorageSettings) -> None:
    store = open_storage(f"s3://{BUCKET}/replaced", s3_settings)
    store.write("take", bytes(2 << 20))
    with store.open_read("take") as stream:
        stream.read(10)
        store.write("take", b"\1" * (2 << 20))
        stream.seek(1 << 20)
        with pytest.raises(ObjectChangedError):
            stream.read(10)


def test_secrets_are_not_shown(s3_settings: StorageSettings, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    store = open_storage(f"s3://{BUCKET}/quiet", s3_settings)
    store.write("a", b"1")
    store.presigned_get("a", 60)
    shown = caplog.text + repr(store) + str(store) + repr(s3_settings) + repr(store.arrow())
    assert SECRET_KEY not in shown
    assert ACCESS_KEY not in repr(store) + repr(s3_settings)


# a server that is ill


@pytest.fixture(scope="module")
def one_server() -> Iterator[Running]:
    with serving({}) as running:
        yield running


@pytest.fixture
def ill(one_server: Running) -> Iterator[Running]:
    """A server to be given its illness as the answer for ``*``; one for all, as making an S3 client is slow."""
    one_server.requests.clear()
    yield one_server
    one_server.answers.clear()


def at(running: Running, how: StorageSettings = ILL) -> Storage:
    return open_storage("s3://bucket/x", replace(how, endpoint_url=running.url("")))


def s3_error(status: str, code: str) -> bytes:
    body = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>AKID hush signed</Message></Error>".encode()
    return reply(body, status=status, Content_Type="application/xml")


@pytest.mark.parametrize(
    ("status", "code", "error", "retryable"),
    [
        ("503 Busy", "SlowDown", StorageUnavailableError, True),
        ("500 Oh", "InternalError", StorageUnavailableError, True),
        ("429 Slow", "TooManyRequests", StorageUnavailableError, True),
        ("403 No", "AccessDenied", StorageDeniedError, False),
        ("403 No", "InvalidAccessKeyId", StorageDeniedError, False),
        ("403 No", "RequestTimeTooSkewed", StorageDeniedError, False),
        ("400 No", "ExpiredToken", StorageDeniedError, False),
        ("404 No", "NoSuchBucket", BucketMissingError, False),
        ("404 No", "NoSuchKey", BucketMissingError, False),
        ("418 Tea", "AKID hush", StorageError, False),
    ],
)
def test_refusals(ill: Running, status: str, code: str, error: type[StorageError], retryable: bool) -> None:
    ill.answers["*"] = lambda link, _: link.sendall(s3_error(status, code))
    store = at(ill)
    for ask in (store.read, lambda key: store.write(key, b"data"), lambda key: list(store.list())):
        with pytest.raises(error) as caught:
            ask("a")
        assert type(caught.value) is error and caught.value.retryable is retryable
        assert "hush" not in caught.value.message and "AKID" not in caught.value.message


def test_down() -> None:
    start = time.monotonic()
    store = open_storage("s3://bucket/x", ILL)
    for ask in (
        store.stat,
        store.exists,
        store.read,
        lambda key: store.write(key, b""),
        lambda key: list(store.list()),
    ):
        with pytest.raises(StorageUnavailableError) as caught:
            ask("a")
        assert caught.value.retryable and "hush" not in caught.value.message
    assert time.monotonic() - start < 60


def test_silent(ill: Running) -> None:
    ill.answers["*"] = lambda link, _: time.sleep(120)
    store = at(ill, SILENT)
    for ask in (store.stat, store.read, lambda key: store.write(key, b"")):
        start = time.monotonic()
        with pytest.raises(StorageTimeoutError) as caught:
            ask("a")
        assert caught.value.retryable and time.monotonic() - start < 60


def test_silent_while_connecting() -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=1) as listening:
        port = listening.getsockname()[1]
        with pytest.raises(StorageTimeoutError):
            open_storage("s3://bucket/x", replace(SILENT, endpoint_url=f"http://127.0.0.1:{port}")).read("a")


def object_server(data: bytes, cut: int, etag: str = '"v1"') -> Callable[[socket.socket, Request], None]:
    """Serves ranges, and breaks off after ``cut`` bytes each time."""

    def answer(link: socket.socket, request: Request) -> None:
        start = int(request.headers.get("range", "bytes=0-")[6:].rstrip("-"))
        status = "206 Partial Content" if start else "200 OK"
        head = {"ETag": etag, "Last_Modified": "Sat, 21 Nov 2020 10:00:00 GMT", "Date": "Sat, 21 Nov 2020 10:00:00 GMT"}
        head["Content_Range"] = f"bytes {start}-{len(data) - 1}/{len(data)}"
        link.sendall(reply(data[start : start + cut], status=status, length=len(data) - start, **head))

    return answer


def test_broken_reading_goes_on_where_it_stopped(ill: Running, tmp_path: Path) -> None:
    data = os.urandom(500_000)
    ill.answers["*"] = object_server(data, 60_000)
    store = at(ill)
    store.get_file("take", tmp_path / "got")
    assert (tmp_path / "got").read_bytes() == data
    assert len(ill.requests) == 9
    assert all(request.headers.get("if-match") == '"v1"' for request in ill.requests[1:])


def test_reading_that_only_breaks_ends(ill: Running, tmp_path: Path) -> None:
    ill.answers["*"] = object_server(bytes(1000), 0)
    with pytest.raises(StorageUnavailableError):
        at(ill).get_file("take", tmp_path / "got")
    assert len(ill.requests) <= 4 and list(tmp_path.iterdir()) == []


def test_a_trickle_meets_a_limit(ill: Running, tmp_path: Path) -> None:
    def drip(link: socket.socket, request: Request) -> None:
        object_server(bytes(100_000), 1)(link, request)
        for _ in range(2400):
            link.sendall(b"x")
            time.sleep(0.05)

    ill.answers["*"] = drip
    start = time.monotonic()
    with pytest.raises(StorageTimeoutError, match="too slow"):
        at(ill, SILENT).get_file("take", tmp_path / "got")
    assert time.monotonic() - start < 60 and list(tmp_path.iterdir()) == []


def test_a_moment_of_trouble_is_survived(ill: Running) -> None:
    answers = [s3_error("503 Busy", "SlowDown"), reply(b"", ETag='"e"')]

    def answer(link: socket.socket, request: Request) -> None:
        link.sendall(
            answers.pop(0) if answers else reply(b"", ETag='"e"', Last_Modified="Sat, 21 Nov 2020 10:00:00 GMT")
        )

    ill.answers["*"] = answer
    at(ill).write("a", b"data")
    assert [request.method for request in ill.requests] == ["PUT", "PUT", "HEAD"]


def test_garbage_from_the_server(ill: Running) -> None:
    ill.answers["*"] = fixed(b"<html>no S3 here</html>", Content_Type="text/html")
    for ask in (lambda: list(at(ill).list()), lambda: at(ill).stat("a"), lambda: at(ill).read("a")):
        with pytest.raises(StorageError):
            ask()
