"""The voices of a deployment, in a folder and in a real S3 store."""

from __future__ import annotations

import json
import os
import tempfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
import safetensors
import safetensors.torch
import torch
from tiny_voices import tiny_file

from rocktop_ray.errors import (
    IndexFormatError,
    SettingsError,
    UnsafeFileError,
    VoiceChangedError,
    VoiceFormatError,
    VoiceNotFoundError,
)
from rocktop_ray.voices.library import VoiceLibrary
from rocktop_ray.voices.open import bundle_folder, open_voice
from serve_apps.config import ServeConfig, VoicesConfig
from serve_apps.voices import VoiceShelf

pytest.importorskip("boto3", reason="S3 tests need boto3: pip install 'rocktop-ray[s3]'")
from shared_voices import (  # noqa: F401
    POLICY,
    cache_fixture,
    index_file,
    index_fixture,
    place_fixture,
    pth_fixture,
    s3_place_fixture,
    shelf_at,
    sound,
    voice_file,
)

pytestmark = pytest.mark.xdist_group("s3")


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
