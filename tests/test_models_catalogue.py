"""The catalogue of weights, and its commands."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from typer.testing import CliRunner
from weights_server import Server, contents, home_fixture, server_fixture, web  # noqa: F401

from rocktop_ray.commands.models import app
from rocktop_ray.errors import ModelMissingError, RocktopError, SettingsError
from rocktop_ray.store import catalogue
from rocktop_ray.store.catalogue import CATALOGUE, GROUPS, expand, lookup
from rocktop_ray.store.fetch import find, verify


def test_every_entry_is_complete() -> None:
    assert set(GROUPS["bundle"]) <= set(CATALOGUE)
    assert len({weights.file for weights in CATALOGUE.values()}) == len(CATALOGUE)
    for weights in CATALOGUE.values():
        assert re.fullmatch("[0-9a-f]{64}", weights.source.sha256)
        assert re.fullmatch("[0-9a-f]{64}", weights.final.sha256)
        assert weights.final.bytes > 200_000
        assert weights.licence.startswith(("MIT", "Apache-2.0"))
        assert bool(weights.source.url) != bool(weights.source.packages)
        assert len(weights.source.packages) == len(weights.source.members)
        assert weights.source.url.startswith("https://") or not weights.source.url
        assert bool(weights.conversion) == bool(weights.converted)


def test_names_groups_and_unknown_names() -> None:
    assert [weights.name for weights in expand(["fcpe", "bundle"])] == ["fcpe", "whisper-base-encoder", "resemblyzer"]
    with pytest.raises(SettingsError, match="whisper-base-encoder"):
        lookup("whisper")


def test_find_says_what_to_run(home: Path) -> None:
    with pytest.raises(ModelMissingError, match="rocktop models fetch fcpe"):
        find("fcpe")
    home.mkdir(parents=True)
    (home / "fcpe_c_v001.pt").write_bytes(b"mine")
    assert find("fcpe") == home / "fcpe_c_v001.pt"
    assert verify(lookup("fcpe")) == "other"
    assert verify(lookup("rmvpe")) == "missing"


def test_commands(server: Server, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    entries = {"thing": web(server), "other": web(server, "other")}
    monkeypatch.setattr(catalogue, "CATALOGUE", entries)
    monkeypatch.setattr(catalogue, "GROUPS", {"pair": ("thing", "other")})
    run = CliRunner()
    fetched = run.invoke(app, ["fetch", "pair"])
    assert fetched.exit_code == 0, fetched.output
    assert contents(home) == ["other.bin", "thing.bin"]
    assert "already at" in run.invoke(app, ["fetch", "thing"]).output
    listed = run.invoke(app, ["list"])
    assert "thing" in listed.output and "MIT" in listed.output and "pair: thing, other" in listed.output
    assert run.invoke(app, ["path", "thing"]).output.strip() == str(home / "thing.bin")
    assert run.invoke(app, ["verify"]).exit_code == 0
    (home / "thing.bin").write_bytes(b"broken")
    broken = run.invoke(app, ["verify"])
    assert broken.exit_code == 1
    assert "thing: differs" in broken.output
    assert isinstance(run.invoke(app, ["fetch", "nothing"]).exception, RocktopError)


def test_the_whisper_entry_describes_itself() -> None:
    about = dict(lookup("whisper-base-encoder").about)
    assert json.dumps(about)
    assert "OpenAI" in about["licence"]
