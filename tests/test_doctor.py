"""The doctor: facts are true, missing things come with a command, the exit code says whether the bundle can run."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch
import typer
from typer.testing import CliRunner

from rocktop_ray import doctor as doctor_module
from rocktop_ray.commands.doctor import doctor, page
from rocktop_ray.doctor import examine
from rocktop_ray.store.catalogue import CATALOGUE
from rocktop_ray.store.fetch import location

app = typer.Typer()
app.command()(doctor)


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ROCKTOP_HOME", str(tmp_path / "deep" / "home"))
    return tmp_path / "deep" / "home"


def install(names: tuple[str, ...]) -> None:
    for name in names:
        path = location(CATALOGUE[name])
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"weights")


@pytest.fixture
def bundled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "bundle").mkdir()
    (tmp_path / "bundle" / "bundle.safetensors").write_bytes(b"voice")
    monkeypatch.setattr("rocktop_ray.voices.open.bundle_folder", lambda: tmp_path / "bundle")


def test_facts() -> None:
    report = examine()
    assert report.versions["python"] == sys.version.split()[0]
    assert report.versions["torch"] == torch.__version__
    assert report.torch_threads == torch.get_num_threads()
    assert 1 <= report.usable_cores <= report.cores
    assert {codec.name for codec in report.codecs if codec.decodes and codec.encodes} >= {"opus", "flac"}
    assert "WAV" in report.sound_files
    assert report.home_free > 0


def test_missing_models_come_with_their_commands(home: Path, bundled: None) -> None:
    report = examine()
    assert not report.ready
    assert not home.exists()
    assert "the weights fcpe are missing; run: rocktop models fetch fcpe" in report.problems
    assert {model.name for model in report.models if not model.installed} == set(CATALOGUE)


def test_ready_with_the_bundle(bundled: None) -> None:
    install(("whisper-base-encoder", "fcpe"))
    report = examine()
    assert report.ready, report.problems
    assert CliRunner().invoke(app).exit_code == 0
    assert "The bundle can run." in page(report)


def test_a_missing_bundle_voice_is_a_problem(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rocktop_ray.voices.open.bundle_folder", lambda: tmp_path)
    install(("whisper-base-encoder", "fcpe"))
    assert len(examine().problems) == 1


def test_one_page(bundled: None) -> None:
    result = CliRunner().invoke(app)
    assert result.exit_code == 1
    lines = result.output.splitlines()
    assert len(lines) <= 40
    assert result.output.count("rocktop models fetch") >= len(CATALOGUE)
    assert lines[-1] == "The bundle cannot run yet."


def test_json(bundled: None) -> None:
    result = CliRunner().invoke(app, ["--json"])
    facts = json.loads(result.output)
    assert result.exit_code == 1
    assert facts["ready"] is False
    assert facts["models"][0]["command"].startswith("rocktop models fetch")


def test_gpus_are_listed(monkeypatch: pytest.MonkeyPatch) -> None:
    card = type("Card", (), {"name": "Test card", "total_memory": 8 << 30})()
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda index: card)
    monkeypatch.setattr(torch.version, "hip", "6.2")
    report = examine()
    assert [gpu.kind for gpu in report.accelerators] == ["ROCm", "ROCm"]
    assert "ROCm: Test card, 8 GiB" in page(report)
    assert report.torch_build == "ROCm 6.2"


def test_little_space_is_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    usage = type("Usage", (), {"free": 5_000_000})()
    monkeypatch.setattr(doctor_module.shutil, "disk_usage", lambda path: usage)
    assert any("5 MB" in text for text in examine().warnings)


def test_a_home_that_is_a_file_is_a_finding(home: Path) -> None:
    home.parent.mkdir(parents=True)
    home.write_text("in the way")
    report = examine()
    assert any("is a file" in text for text in report.problems)
    assert report.voices == 0
