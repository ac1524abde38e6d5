"""One contract for both stores: a folder, and a real S3 server."""

from __future__ import annotations

import errno
import io
import os
import pickle
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rocktop_ray.errors import ObjectChangedError, ObjectMissingError, SettingsError, StorageError
from rocktop_ray.store.keys import check_key, content_type
from rocktop_ray.store.local import LocalStorage
from rocktop_ray.store.settings import StorageSettings, s3_place
from rocktop_ray.store.storage import Storage, link, open_storage, split_s3

pytest.importorskip("boto3", reason="S3 tests need boto3: pip install 'rocktop-ray[s3]'")
from stores import ILL, s3_settings_fixture, store_fixture  # noqa: F401

pytestmark = pytest.mark.xdist_group("s3")

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
    calls: list[Callable[[str], object]] = [
        *(store.read, store.stat, store.delete, store.exists, store.open_read, store.public_url),
        *(lambda key: store.write(key, b""), lambda key: store.open_write(key).__enter__()),
        *(lambda key: store.put_file(key, file), lambda key: store.get_file(key, tmp_path / "x")),
        *(lambda key: store.copy(key, "a"), lambda key: store.copy("a", key), lambda key: store.presigned_get(key, 60)),
    ]
    for key in BAD_KEYS:
        for call in calls:
            with pytest.raises(SettingsError):
                call(key)
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
