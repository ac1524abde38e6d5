"""The library of voices on full and read-only disks, and with other processes, some of them killed."""

import errno
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from tiny_voices import tiny_config, tiny_file
from voices_shelf import WHOLE, files, pth_fixture, shelf_fixture  # noqa: F401

from rocktop_ray.errors import StorageError
from rocktop_ray.voices import library as library_module
from rocktop_ray.voices.library import VoiceLibrary
from rocktop_ray.voices.open import open_voice

HERE = Path(__file__).parent


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
