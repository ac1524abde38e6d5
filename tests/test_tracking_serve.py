"""Registered voices in the service: over HTTP and at its start, from the store that the operator named."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from gateway_server import gateway_fixture, home_fixture, serving_gateway, small_config  # noqa: F401
from tracking_parts import voice_files

from rocktop_ray.tracking.place import tracking_place
from rocktop_ray.tracking.registry import register_voice
from rocktop_ray.tracking.tracker import Tracker
from serve_apps.config import ServeConfig
from serve_apps.replicas import preload
from serve_apps.voices import VoiceShelf


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A store with two versions of the voice ``clara``, the first of them the champion."""
    folder = tmp_path_factory.mktemp("registry")
    tracker = Tracker(tracking_place(str(folder)))
    run = tracker.start_run("voices", "clara", {})
    for seed in (0, 1):
        register_voice(tracker, "clara", voice_files(folder / str(seed), "clara", seed), run_id=run.id, facts={})
    tracker.client.set_registered_model_alias("clara", "champion", "1")
    return folder


def voices(home: Path, **more: Any) -> dict[str, Any]:
    return {"library": str(home / "home" / "voices"), "preload": [], **more}


def test_no_registry_unless_the_operator_named_one(home: Path, registry: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", str(registry))
    with serving_gateway(home) as own, own.client() as client:
        refused = client.post("/v1/voices", json={"url": "mlflow:clara"})
        assert refused.status_code == 422 and "voices.tracking" in refused.json()["detail"]


def test_import_of_a_registered_voice(home: Path, registry: Path) -> None:
    with serving_gateway(home, voices=voices(home, tracking=str(registry))) as own, own.client() as client:
        made = client.post("/v1/voices", json={"url": "mlflow:clara/1", "licence": "mine"})
        assert made.status_code == 201, made.text
        facts = made.json()
        assert (facts["name"], facts["index_vectors"], facts["licence"]) == ("clara", 30, "mine")
        assert facts["source"] == "clara.safetensors" and str(registry) not in made.text
        other = client.post("/v1/voices", json={"url": "mlflow:clara", "name": "newest"})
        assert other.status_code == 201 and other.json()["sha256"] != facts["sha256"]
        taken = client.post("/v1/voices", json={"url": "mlflow:clara@champion"})
        assert taken.status_code == 422 and "replace=true" in taken.json()["detail"]
        for wrong, status in (
            ("mlflow:clara/7", 404),
            ("mlflow:clara@nobody", 404),
            ("mlflow:dora", 404),
            ("mlflow:../clara", 422),
            ("mlflow:http://127.0.0.1:1/clara", 422),
            ("mlflow:clara@x?tracking=http://127.0.0.1:1", 422),
        ):
            answer = client.post("/v1/voices", json={"url": wrong})
            assert answer.status_code == status and str(registry) not in answer.text, answer.text
        both = client.post("/v1/voices", json={"url": "mlflow:clara", "index_url": "http://example.com/a.index"})
        assert both.status_code == 422 and "own index" in both.text
        uploaded = {"voice": ("x.pth", (registry / "0" / "clara.pth").read_bytes())}
        assert client.post("/v1/voices", files=uploaded, data={"url": "mlflow:clara"}).status_code == 422


def test_a_voice_above_the_limit(home: Path, registry: Path) -> None:
    where = voices(home, tracking=str(registry))
    with serving_gateway(home, voices=where, limits={"voice_bytes": 1024}) as own, own.client() as client:
        answer = client.post("/v1/voices", json={"url": "mlflow:clara"})
        assert answer.status_code == 422 and "more than 1024" in answer.text


def test_a_registry_that_is_down_is_not_named(home: Path) -> None:
    where = voices(home, tracking="http://me:hush-hush@127.0.0.1:9")
    with serving_gateway(home, voices=where) as own, own.client() as client:
        answer = client.post("/v1/voices", json={"url": "mlflow:clara"}, timeout=120)
        assert answer.status_code == 502 and answer.json()["code"] == "tracking_failed"
        assert "hush" not in answer.text and "127.0.0.1" not in answer.text


def test_voices_that_are_there_from_the_start(
    home: Path, registry: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    where = {"library": str(tmp_path / "voices"), "tracking": str(registry)}
    names = ["mlflow:clara@champion", "mlflow:nobody"]
    config = small_config(home, voices={**where, "preload": names})
    shelf, ready = VoiceShelf.open(config), []
    ids = preload(config, shelf, ready.append)
    assert [ref.name for ref in ready] == ["clara"] and ids == [ready[0].id]
    assert [record.voice for record in caplog.records if hasattr(record, "voice")] == ["mlflow:nobody"]
    first = shelf.info("clara")
    preload(config, shelf, ready.append)
    assert shelf.info("clara") == first  # not imported again
    later = ServeConfig.model_validate({**config.model_dump(), "voices": {**where, "preload": ["mlflow:clara/2"]}})
    preload(later, shelf, ready.append)
    assert shelf.info("clara").sha256 != first.sha256
