"""A voice file, its index and an empty library, for tests of voices."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tiny_voices import tiny_file

from rocktop_ray.features.index import RetrievalIndex
from rocktop_ray.voices.library import VoiceLibrary


@pytest.fixture(name="pth")
def pth_fixture(tmp_path):
    path = tmp_path / "files" / "anna.pth"
    path.parent.mkdir()
    torch.save(tiny_file(), path)
    return path


@pytest.fixture(name="index")
def index_fixture(tmp_path):
    path = tmp_path / "added_IVF1_Flat_nprobe_1_anna_v1.index"
    RetrievalIndex.build(np.random.default_rng(0).standard_normal((30, 256))).save(path)
    return path


@pytest.fixture(name="shelf")
def shelf_fixture(tmp_path):
    return VoiceLibrary(tmp_path / "voices")


def files(shelf) -> set[str]:
    return {path.relative_to(shelf.root).as_posix() for path in shelf.root.rglob("*") if path.is_file()} - {".lock"}


WHOLE = {"anna/manifest.json", "anna/voice.safetensors"}
