import errno
import json
import os
import resource
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tiny_voices import tiny_config, tiny_file

import rocktop_ray
from rocktop_ray.errors import (
    IndexFormatError,
    SettingsError,
    StorageError,
    UnsafeFileError,
    VoiceFormatError,
    VoiceNotFoundError,
)
from rocktop_ray.features.index import RetrievalIndex
from rocktop_ray.voices import library as library_module
from rocktop_ray.voices import open as open_module
from rocktop_ray.voices.library import VoiceLibrary
from rocktop_ray.voices.names import clean_name, valid_name
from rocktop_ray.voices.open import Voice, open_index, open_voice, read_rvc_voice, voice_info

HERE = Path(__file__).parent


@pytest.fixture
def pth(tmp_path):
    path = tmp_path / "files" / "anna.pth"
    path.parent.mkdir()
    torch.save(tiny_file(), path)
    return path


@pytest.fixture
def index(tmp_path):
    path = tmp_path / "added_IVF1_Flat_nprobe_1_anna_v1.index"
    RetrievalIndex.build(np.random.default_rng(0).standard_normal((30, 256))).save(path)
    return path


@pytest.fixture
def shelf(tmp_path):
    return VoiceLibrary(tmp_path / "voices")


def files(shelf) -> set[str]:
    return {path.relative_to(shelf.root).as_posix() for path in shelf.root.rglob("*") if path.is_file()} - {".lock"}


WHOLE = {"anna/manifest.json", "anna/voice.safetensors"}


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


# --- the disk, and other processes -----------------------------------------------------------------------------------


@pytest.mark.parametrize("replacing", [False, True])
def test_full_disk_leaves_the_library_intact(shelf, pth, monkeypatch, replacing):
    if replacing:
        shelf.import_(pth)
    before = files(shelf) if replacing else set()
    write = library_module._write

    def full(path, data):
        if path.name == "manifest.json":
            raise OSError(errno.ENOSPC, "No space left on device")
        write(path, data)

    monkeypatch.setattr(library_module, "_write", full)
    with pytest.raises(StorageError, match="no space left"):
        shelf.import_(pth, replace_existing=replacing)
    assert files(shelf) == before
    assert [path.name for path in shelf.root.iterdir() if path.name != ".lock"] == ["anna"] * replacing
    monkeypatch.undo()
    assert shelf.import_(pth, replace_existing=True).name == "anna"


def test_real_file_size_limit(shelf, pth):
    """The kernel refuses the write half way (EFBIG), as a full disk does."""
    code = (
        "import resource, signal, sys\n"
        "from rocktop_ray.voices.library import VoiceLibrary\n"
        "from rocktop_ray.errors import StorageError\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))\n"
        "try: VoiceLibrary(sys.argv[1]).import_(sys.argv[2])\n"
        "except StorageError as error: print('refused:', error)\n"
    )
    done = run(code, shelf.root, pth)
    assert done.stdout.startswith("refused: cannot change the voice library") and files(shelf) == set()
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] != 4096


def test_read_only_library(tmp_path, pth):
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError):
        VoiceLibrary(tmp_path / "file" / "voices").import_(pth)


def run(code: str, *arguments) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, "-c", code, *map(str, arguments)], **_CHILD, check=True, timeout=250)


_CHILD = {
    "env": {**os.environ, "PYTHONPATH": os.pathsep.join([str(HERE.parent), str(HERE)]), "OMP_NUM_THREADS": "1"},
    "stdout": subprocess.PIPE,
    "text": True,
}

# Stops for ever just before the step of an import that argv[3] names, and says so.
_STOPPING = """
import sys, time
from rocktop_ray.voices import library
from rocktop_ray.voices.library import VoiceLibrary

def stop(*_):
    print("there", flush=True)
    time.sleep(600)

if sys.argv[3] == "writing":
    write = library._write
    library._write = lambda path, data: stop() if path.name == "manifest.json" else write(path, data)
else:
    library.shutil.rmtree = stop  # the new voice is in place, the old one is set aside
    if sys.argv[3] == "renaming":
        rename = library.Path.rename
        library.Path.rename = lambda self, to: stop() if self.name.startswith(".staging") else rename(self, to)
VoiceLibrary(sys.argv[1]).import_(sys.argv[2], replace_existing=True)
"""


@pytest.mark.parametrize("step", ["writing", "renaming", "cleaning"])
def test_a_killed_import_leaves_a_whole_voice(shelf, pth, step):
    shelf.import_(pth)
    torch.save(tiny_file(tiny_config(speakers=2)), pth)
    child = subprocess.Popen([sys.executable, "-c", _STOPPING, str(shelf.root), str(pth), step], **_CHILD)
    assert child.stdout is not None and child.stdout.readline() == "there\n"
    child.send_signal(signal.SIGKILL)
    child.wait(timeout=120)
    child.stdout.close()
    assert any(path.name.startswith((".staging-", ".old-")) for path in shelf.root.iterdir())
    torch.save(tiny_file(), pth)
    shelf.import_(pth, name="next")
    assert files(shelf) == {*WHOLE, "next/manifest.json", "next/voice.safetensors"}
    assert shelf.info("anna").speakers == (2 if step == "cleaning" else 3)
    assert open_voice("anna", library=shelf.root).model.spec.speakers == shelf.info("anna").speakers


_MANY = """
import sys
from rocktop_ray.voices.library import VoiceLibrary
for number in range(2):
    VoiceLibrary(sys.argv[1]).import_(sys.argv[2], name=f"{sys.argv[3]} {number}")
    VoiceLibrary(sys.argv[1]).import_(sys.argv[2], name="same", replace_existing=True)
"""


def test_two_processes_at_once(shelf, pth):
    command = [sys.executable, "-c", _MANY, str(shelf.root), str(pth)]
    children = [subprocess.Popen([*command, who], **_CHILD) for who in ("a", "b")]
    while any(child.poll() is None for child in children):
        for info in shelf.infos():  # whoever reads meanwhile sees whole voices only
            assert info.sample_rate == 8000
        time.sleep(0.05)
    assert [child.returncode for child in children] == [0, 0]
    for child in children:
        child.stdout.close()
    assert shelf.names() == [*(f"a {n}" for n in range(2)), *(f"b {n}" for n in range(2)), "same"]
    assert not any(path.name.startswith((".staging-", ".old-", ".trash-")) for path in shelf.root.iterdir())


# --- opening ---------------------------------------------------------------------------------------------------------


def test_open_by_name_and_by_file(shelf, pth, index):
    shelf.import_(pth, index=index)
    voice = open_voice("anna", library=shelf.root)
    assert isinstance(voice, Voice) and voice.name == "anna" and voice.index.count == 30
    assert voice.info.index_vectors == 30 and voice.default_extractor is None
    spec = voice.model.spec
    assert (spec.sample_rate, spec.hop, spec.content.name, spec.content.dim) == (8000, 80, "hubert-v1", 256)
    for path in (pth, str(pth)):
        by_file = open_voice(path, library=shelf.root)
        assert by_file.name == "anna" and by_file.index is None
    units, f0 = np.ones((20, 256), np.float32), np.full(20, 220, np.float32)
    latents = [opened.model.latent(units, f0) for opened in (voice, by_file)]
    assert np.array_equal(*latents) and voice.model.wave(latents[0], f0).shape == (1600,)
    assert open_voice(pth, library=shelf.root, index=index).index.count == 30
    index.rename(pth.with_suffix(".index"))
    assert open_voice(pth, library=shelf.root).index.count == 30
    assert open_index("anna", library=shelf.root).count == 30
    assert voice_info("anna", library=shelf.root) == shelf.info("anna")


def test_open_by_content_not_by_name(shelf, pth, tmp_path):
    shelf.import_(pth)
    odd = tmp_path / "voice.txt"
    odd.write_bytes(shelf.voice_path("anna").read_bytes())
    assert open_voice(odd).info.sample_rate == 8000
    odd.write_bytes(pth.read_bytes())
    assert open_voice(str(odd)).info.sample_rate == 8000


def test_open_says_what_is_missing(shelf, pth, tmp_path, monkeypatch):
    shelf.import_(pth)
    with pytest.raises(VoiceNotFoundError, match=r"no voice 'berta' in the library .*: it has anna"):
        open_voice("berta", library=shelf.root)
    with pytest.raises(VoiceNotFoundError, match="no voice file"):
        open_voice("berta.pth", library=shelf.root)
    with pytest.raises(VoiceNotFoundError):
        open_voice("../anna", library=shelf.root / "anna")
    with pytest.raises(VoiceNotFoundError):
        open_voice("a\0b", library=shelf.root)
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        archive.write(pth, "a.pth")
    with pytest.raises(VoiceFormatError, match="rocktop voices import"):
        open_voice(tmp_path / "x.zip", library=shelf.root)
    with pytest.raises(VoiceFormatError, match="rocktop voices import"):
        open_voice(tmp_path, library=shelf.root)
    monkeypatch.setattr(open_module, "bundle_folder", lambda: tmp_path)
    with pytest.raises(VoiceNotFoundError, match="no bundled voice"):
        open_voice("bundle", library=shelf.root)


def test_bundle_is_found(pth, index, tmp_path, monkeypatch, shelf):
    """Any family can be the bundle: it is the folder that makes it one."""
    shelf.import_(pth)
    (tmp_path / "bundle.safetensors").write_bytes(shelf.voice_path("anna").read_bytes())
    index.rename(tmp_path / "bundle.index")
    assert open_module.bundle_folder() == Path(rocktop_ray.__file__).parent / "bundle"
    monkeypatch.setattr(open_module, "bundle_folder", lambda: tmp_path)
    voice = open_voice("bundle")
    assert (voice.name, voice.info.name, voice.index.count) == ("bundle", "bundle", 30)


def test_a_voice_of_another_family(shelf, tmp_path):
    """The project's own small voice goes through the same doors; what is not of its form is refused."""
    import dataclasses

    from rocktop_ray.models.singer.about import SingerAbout
    from rocktop_ray.models.singer.network import SingerConfig, SingerNet
    from rocktop_ray.voices.singer_format import write_singer

    sizes = {"content_dim": 8, "width": 8, "dilations": (1,), "harmonic_bands": 8, "noise_bands": 8, "high_bands": 4}
    about = SingerAbout(48_000, "whisper-base", ("a",), defaults={"index_rate": 0.0}, median_f0=200.0, licence="CC0")
    path = tmp_path / "small.safetensors"
    write_singer(path, SingerNet(SingerConfig(**sizes)), about)
    info = shelf.import_(path)
    assert (info.family, info.content_name, info.content_dim, info.median_f0) == ("singer", "whisper-base", 8, 200.0)
    voice = open_voice("small", library=shelf.root)
    assert voice.info == info and voice.default_extractor == "fcpe" and voice.info.defaults == {"index_rate": 0.0}
    assert shelf.voice_path("small").read_bytes() == path.read_bytes()
    with pytest.raises(VoiceFormatError, match="singer family"):
        read_rvc_voice("small", library=shelf.root)
    nothing = dataclasses.replace(about, median_f0=0.0)
    write_singer(path, SingerNet(SingerConfig(**sizes)), nothing)
    assert open_voice(path).info.median_f0 is None
    data = path.read_bytes()
    for length in (9, 200, len(data) - 1):
        path.write_bytes(data[:length])
        with pytest.raises(VoiceFormatError):
            open_voice(path)


def test_manifest_is_plain_json(shelf, pth):
    shelf.import_(pth)
    manifest = json.loads((shelf.root / "anna" / "manifest.json").read_text())
    assert manifest.pop("manifest") == 1 and manifest == shelf.info("anna").as_dict()


def test_a_linked_voice_is_unlinked_and_kept_where_it_is(tmp_path):
    library = VoiceLibrary(tmp_path / "voices")
    library.root.mkdir()
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "kept.txt").write_text("mine")
    (library.root / "linked").symlink_to(elsewhere)
    library.remove("linked")
    assert (elsewhere / "kept.txt").read_text() == "mine"
    assert [entry.name for entry in library.root.iterdir()] == [".lock"]
