"""Voices in a real S3 store: nodes at once, deaths, damage."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from http_server import serving

from rocktop_ray.errors import (
    SettingsError,
    StorageTimeoutError,
    StorageUnavailableError,
    VoiceChangedError,
    VoiceFormatError,
    VoiceNotFoundError,
)
from rocktop_ray.store.settings import StorageSettings
from rocktop_ray.store.storage import Storage, open_storage
from rocktop_ray.voices import shared as shared_module
from rocktop_ray.voices.shared import SharedLibrary

pytest.importorskip("boto3", reason="S3 tests need boto3: pip install 'rocktop-ray[s3]'")
from shared_voices import (  # noqa: F401
    cache_fixture,
    index_file,
    index_fixture,
    place_fixture,
    pth_fixture,
    s3_place_fixture,
    shelf_at,
    voice_file,
)

pytestmark = pytest.mark.xdist_group("s3")


HERE = Path(__file__).parent


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
