import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from tiny_voices import tiny_file
from typer.testing import CliRunner

from rocktop_ray.commands.voices import app
from rocktop_ray.errors import RocktopError
from rocktop_ray.features.index import RetrievalIndex
from rocktop_ray.voices.rvc_format import read_rvc


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("ROCKTOP_HOME", str(tmp_path / "home"))
    torch.save(tiny_file(), tmp_path / "anna.pth")
    torch.save(tiny_file(seed=1), tmp_path / "berta.pth")
    RetrievalIndex.build(np.random.default_rng(0).standard_normal((30, 256))).save(tmp_path / "anna.index")
    return tmp_path


def rocktop(*words):
    done = CliRunner().invoke(app, [str(word) for word in words])
    if isinstance(done.exception, RocktopError):
        raise done.exception
    assert done.exit_code == 0, done.output
    return done.output


def test_a_voice_from_import_to_remove(home):
    assert "no voices" in rocktop("list")
    info = json.loads(rocktop("import", home / "anna.pth", "--licence", "only [red]tests", "--json"))
    assert (info["name"], info["index_vectors"], info["licence"]) == ("anna", 30, "only [red]tests")
    shown = rocktop("info", "anna")
    assert "only [red]tests" in shown and "8000" in shown and "hubert-v1" in shown
    listed = json.loads(rocktop("list", "--json"))
    assert listed == {"voices": [info], "damaged": []} and "anna" in rocktop("list")
    (home / "home" / "voices" / "anna" / "manifest.json").write_text("{")
    assert json.loads(rocktop("list", "--json"))["damaged"] == ["anna"] and "damaged" in rocktop("list")
    assert json.loads(rocktop("remove", "anna", "--json")) == {"removed": "anna"}


def test_export_and_merge(home):
    rocktop("import", home / "anna.pth")
    rocktop("export", "anna", home / "out.pth")
    ours, theirs = read_rvc(home / "out.pth"), read_rvc(home / "anna.pth")
    assert all(torch.equal(ours.state[name], theirs.state[name]) for name in theirs.state)
    assert (home / "out.index").read_bytes() == (home / "anna.index").read_bytes()
    rocktop("merge", "anna", home / "berta.pth", "--alpha", "0.3", "--out", home / "mix.safetensors")
    mixed = read_rvc(home / "mix.safetensors")
    assert mixed.info == "0.3 anna + 0.7 berta"
    shown = json.loads(rocktop("info", home / "mix.safetensors", "--json"))
    assert shown["info"] == mixed.info and shown["family"] == "rvc"


def test_errors_come_through(home):
    with pytest.raises(RocktopError, match="no voice 'x'"):
        rocktop("info", "x")
    with pytest.raises(RocktopError, match="already"):
        rocktop("extract", home / "anna.pth", home / "out.pth")
    with pytest.raises(RocktopError, match=r"\.safetensors"):
        rocktop("export", home / "anna.pth", home / "out.onnx")


def test_help_imports_nothing_heavy():
    heavy = "('torch', 'faiss', 'sklearn', 'numpy')"
    code = f"import sys, rocktop_ray.commands.voices; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
