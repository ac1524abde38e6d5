"""The library of voices: importing, names, replacing, damage."""

import json
import os
import zipfile

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tiny_voices import tiny_config, tiny_file
from voices_shelf import WHOLE, files, index_fixture, pth_fixture, shelf_fixture  # noqa: F401

from rocktop_ray.errors import (
    IndexFormatError,
    SettingsError,
    UnsafeFileError,
    VoiceFormatError,
    VoiceNotFoundError,
)
from rocktop_ray.features.index import RetrievalIndex
from rocktop_ray.voices.names import clean_name, valid_name
from rocktop_ray.voices.open import read_rvc_voice


def test_import_list_info_remove(shelf, pth, index):
    assert shelf.names() == [] and shelf.infos() == []
    info = shelf.import_(pth, index=index, licence="CC0")
    assert files(shelf) == {*WHOLE, "anna/voice.index"}
    assert shelf.infos() == [info] == [shelf.info("anna")]
    facts = (info.name, info.family, info.sample_rate, info.version, info.uses_f0, info.content_name, info.speakers)
    assert facts == ("anna", "rvc", 8000, "v1", True, "hubert-v1", 3)
    assert (info.index_vectors, info.licence, info.source, info.decoder) == (30, "CC0", "anna.pth", "hifigan")
    assert info.size == shelf.voice_path("anna").stat().st_size and info.index_bytes == index.stat().st_size
    assert len(info.sha256) == len(info.source_sha256) == 64 and info.imported.startswith("20")
    assert read_rvc_voice("anna", library=shelf.root).licence == "CC0"
    shelf.remove("anna")
    assert files(shelf) == set() and not shelf.has("anna")
    with pytest.raises(VoiceNotFoundError, match="it is empty"):
        shelf.remove("anna")


def test_import_from_zip_and_folder(shelf, pth, index, tmp_path):
    with zipfile.ZipFile(tmp_path / "share.zip", "w") as archive:
        archive.write(pth, "Some Voice/berta.pth")
        archive.write(index, f"Some Voice/{index.name}")
    info = shelf.import_(tmp_path / "share.zip")
    assert (info.name, info.index_vectors, info.source) == ("berta", 30, "share.zip")
    assert shelf.import_(pth.parent, name="from folder").name == "from folder"
    assert shelf.names() == ["berta", "from folder"]


def test_a_taken_name_is_kept_or_replaced(shelf, pth, index, tmp_path):
    shelf.import_(pth, index=index)
    with pytest.raises(SettingsError, match="or replace it"):
        shelf.import_(pth)
    with pytest.raises(SettingsError, match="anna"):
        shelf.import_(pth, name="ANNA", replace_existing=True)  # the same folder on some file systems
    torch.save(tiny_file(tiny_config(speakers=2)), pth)
    assert shelf.import_(pth, replace_existing=True).speakers == 2
    assert files(shelf) == WHOLE and shelf.info("anna").speakers == 2


@pytest.mark.parametrize(
    "name", ["", "..", "../x", "a/b", ".hidden", "bundle", "Bundle", "con", "nul.x", "a" * 65, "x.", "a\0"]
)
def test_names_that_cannot_be_used(shelf, pth, name):
    with pytest.raises(SettingsError, match="cannot be a voice's name"):
        shelf.import_(pth, name=name)
    with pytest.raises(VoiceNotFoundError):
        shelf.info(name)
    with pytest.raises(VoiceNotFoundError):
        shelf.remove(name)


@given(st.text(max_size=200))
def test_cleaned_names_are_valid(text):
    assert valid_name(clean_name(text))


def test_cleaned_names_read_well():
    names = {
        "../My Singer!.v2": "My Singer.v2",
        "Ärger": "Ärger",
        "bundle": "voice bundle",
        "???": "voice",
        "歌手": "歌手",
    }
    assert {text: clean_name(text) for text in names} == names


def test_what_does_not_fit_leaves_the_library_as_it_was(shelf, pth, index, tmp_path):
    shelf.import_(pth)
    before = {name: (shelf.root / name).read_bytes() for name in files(shelf)}
    wide = tmp_path / "wide.index"
    RetrievalIndex.build(np.ones((5, 768), np.float32)).save(wide)
    with pytest.raises(IndexFormatError, match=r"768 numbers.*256"):
        shelf.import_(pth, name="b", index=wide)

    class Evil:
        def __reduce__(self):
            return os.system, ("exit 1",)

    torch.save({"weight": {}, "config": Evil()}, tmp_path / "evil.pth")
    with pytest.raises(UnsafeFileError, match="system"):
        shelf.import_(tmp_path / "evil.pth")
    (tmp_path / "text.pth").write_text("hello")
    with pytest.raises(VoiceFormatError):
        shelf.import_(tmp_path / "text.pth")
    with pytest.raises(VoiceNotFoundError):
        shelf.import_(tmp_path / "none.pth")
    assert {name: (shelf.root / name).read_bytes() for name in files(shelf)} == before


_NAN = json.dumps(
    {
        **dict.fromkeys(("name", "family", "content_name", "decoder"), "x"),
        **dict.fromkeys(("sample_rate", "content_dim", "speakers"), 1),
        **{"manifest": 1, "uses_f0": True, "median_f0": float("nan")},
    }
)


def test_a_damaged_manifest_hides_one_voice_only(shelf, pth):
    shelf.import_(pth)
    shelf.import_(pth, name="berta")
    for text in ("{", "[]", '{"manifest": 9}', '{"manifest": 1, "name": 3}', "[" * 100_000, _NAN):
        (shelf.root / "anna" / "manifest.json").write_text(text)
        assert [info.name for info in shelf.infos()] == ["berta"] and shelf.damaged() == ["anna"]
        with pytest.raises(VoiceFormatError, match="damaged"):
            shelf.info("anna")
    shelf.remove("anna")
    assert shelf.names() == ["berta"] and not shelf.damaged()


def test_manifest_is_plain_json(shelf, pth):
    shelf.import_(pth)
    manifest = json.loads((shelf.root / "anna" / "manifest.json").read_text())
    assert manifest.pop("manifest") == 1 and manifest == shelf.info("anna").as_dict()
