"""Tracking with a real ``mlflow server``, a process: SQLite behind it, files in a real S3."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from mlflow_server import MlflowServer
from s3_server import s3_server
from tracking_parts import FINGERPRINT, config, facts, log, outcome, validate, voice_files

from rocktop_ray.config.training import TrackingConfig
from rocktop_ray.store.local import LocalStorage
from rocktop_ray.tracking.outbox import Outbox
from rocktop_ray.tracking.place import tracking_place
from rocktop_ray.tracking.registry import registered_voice
from rocktop_ray.tracking.tracker import Tracker
from rocktop_ray.voices.library import VoiceLibrary
from train_loops.rvc.account import FinishedFile
from train_loops.rvc.finish import Finished
from train_loops.rvc.registered import mark_ended, register_finished
from train_loops.rvc.tracked import Tracked

pytestmark = pytest.mark.xdist_group("mlflow")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MlflowServer]:
    with s3_server() as s3:
        made = MlflowServer(tmp_path_factory.mktemp("mlflow"), s3.endpoint)
        made.start()
        yield made
        made.kill()


def values(server: MlflowServer, run_id: str, name: str = "loss/mel") -> list[tuple[int, float]]:
    found = server.get("metrics/get-history", run_id=run_id, metric_key=name)["metrics"]
    return [(int(entry.get("step", 0)), entry["value"]) for entry in found]


def paths(server: MlflowServer, run_id: str, folder: str = "") -> list[str]:
    listed = server.get("artifacts/list", run_id=run_id, **({"path": folder} if folder else {})).get("files", [])
    return [
        path
        for entry in listed
        for path in (paths(server, run_id, entry["path"]) if entry.get("is_dir") else [entry["path"]])
    ]


def test_a_run_read_back_from_the_web_api(server: MlflowServer, capfd: pytest.CaptureFixture[str]) -> None:
    with Tracked.open(TrackingConfig(server.uri, "songs")) as tracked:
        tracked.on_train_start(facts(), outcome(1).at)
        for step in range(10, 60, 10):
            log(tracked, step)
        validate(tracked, 50)
        tracked.on_train_end(outcome(50))
    assert capfd.readouterr() == ("", "")
    run = server.get("runs/get", run_id=tracked.run_id)["run"]
    assert run["info"]["status"] == "FINISHED" and run["info"]["artifact_uri"].startswith("mlflow-artifacts:/")
    assert values(server, tracked.run_id) == [(step, 1 / step) for step in range(10, 60, 10)]
    assert values(server, tracked.run_id, "validation/score") == [(50, 0.2)]
    tags = {entry["key"]: entry["value"] for entry in run["data"]["tags"]}
    assert (
        tags["dataset_fingerprint"] == FINGERPRINT and tags["mlflow.source.type"] == "JOB" and tags["best_step"] == "50"
    )
    params = {entry["key"]: entry["value"] for entry in run["data"]["params"]}
    assert params["recipe.synthesizer.sample_rate"] == "8000" and len(params) > 60 and "hush" not in json.dumps(run)
    assert run["inputs"]["dataset_inputs"][0]["dataset"]["digest"] == FINGERPRINT[:36]
    found = paths(server, tracked.run_id)
    wave, picture = "samples/50/take 0.wav", "samples/50/take 0.png"
    assert sorted(found) == [
        "recipe.json",
        wave.replace("wav", "png"),
        wave,
        "samples/target/take 0.wav",
        "settings.json",
    ]
    assert server.file(tracked.run_id, wave)[:4] == b"RIFF" and server.file(tracked.run_id, picture)[1:4] == b"PNG"


def test_a_server_that_is_killed_in_mid_run(server: MlflowServer, caplog: pytest.LogCaptureFixture) -> None:
    tracker = Tracker(tracking_place(server.uri), "songs")
    with Tracked(tracker, outbox=Outbox(tracker.ask, first_pause=0.1, longest_pause=1.0)) as tracked:
        tracked.on_train_start(facts(), outcome(1).at)
        log(tracked, 10)
        assert tracked._outbox.flush(30)
        server.kill()
        began = time.monotonic()
        for step in (20, 30):
            log(tracked, step)
        validate(tracked, 30)
        assert time.monotonic() - began < 60  # training waits for no server; drawing takes its time
        while "goes on" not in caplog.text:
            assert time.monotonic() - began < 120
            time.sleep(0.1)
        server.start()
        log(tracked, 40)
        tracked.on_train_end(outcome(40))
    assert values(server, tracked.run_id) == [(step, 1 / step) for step in (10, 20, 30, 40)]
    assert "samples/30/take 0.wav" in paths(server, tracked.run_id)
    assert server.get("runs/get", run_id=tracked.run_id)["run"]["info"]["status"] == "FINISHED"
    assert len([record for record in caplog.records if "goes on" in record.getMessage()]) == 1
    assert not any(thread.name == "tracking" for thread in threading.enumerate())


def finished(storage: LocalStorage, seed: int, score: float) -> Finished:
    """What ``finish`` returns, and leaves."""
    root = Path(storage.root)
    files = tuple(FinishedFile(path.name, path.stat().st_size, "") for path in voice_files(root, seed=seed)[:3])
    account = {
        "voice": {"sample_rate": 8000, "content": "hubert-v1", "licence": "CC0-1.0"},
        "recipe": {"version": "v1"},
        "dataset": {"fingerprint": FINGERPRINT},
        "version": {"version": "0.1.0"},
    }
    return Finished(storage.url, files, 50, score, None, account)


def test_a_finished_voice_is_registered_and_comes_back(server: MlflowServer, tmp_path: Path) -> None:
    settings, storage = config(server.uri), LocalStorage(tmp_path / "trained" / "anna")
    with Tracked.open(settings.tracking, storage) as tracked:
        tracked.on_train_start(facts(), outcome(1).at)
        tracked.on_train_end(outcome(50))
    first = register_finished(settings, storage, finished(storage, 0, 0.7))
    assert first is not None and (first.reference, first.run_id) == ("mlflow:anna/1", tracked.run_id)
    assert register_finished(settings, storage, finished(storage, 0, 0.7)) == first
    second = register_finished(settings, storage, finished(storage, 1, 0.6))
    assert second is not None and second.version == "2"
    version = server.get("model-versions/get", name="anna", version="2")["model_version"]
    tags = {entry["key"]: entry["value"] for entry in version["tags"]}
    assert version["status"] == "READY" and version["run_id"] == tracked.run_id
    assert tags["score"] == "0.6" and tags["rate"] == "8000" and tags["fingerprint"] == FINGERPRINT
    model = yaml.safe_load(server.file(tracked.run_id, f"voices/{tags['sha256'][:12]}/MLmodel"))
    assert model["run_id"] == tracked.run_id and model["flavors"]["rocktop"]["voice"] == "anna.safetensors"
    server.post("registered-models/alias", name="anna", alias="champion", version="1")
    shelf = VoiceLibrary(tmp_path / "voices")
    with registered_voice("mlflow:anna@champion", server.uri) as found:
        info = shelf.import_(found.voice, name="champion", index=found.index)
        assert str(found.reference) == "mlflow:anna/1" and info.index_vectors == 30
    with registered_voice("mlflow:anna", server.uri) as found:
        assert found.voice.read_bytes() == (tmp_path / "trained" / "anna" / "anna.safetensors").read_bytes()
    for before, after in (("FINISHED", "FINISHED"), ("RUNNING", "KILLED")):
        server.post("runs/update", run_id=tracked.run_id, status=before)
        mark_ended(settings, storage, "KILLED")
        assert server.get("runs/get", run_id=tracked.run_id)["run"]["info"]["status"] == after
    storage.delete("tracking.json")
    untracked = register_finished(settings, storage, finished(storage, 2, 0.5))
    assert untracked is not None and untracked.version == "3" and untracked.run_id != tracked.run_id


def test_registering_without_a_server_leaves_the_voice(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    storage = LocalStorage(tmp_path)
    assert register_finished(config("http://me:hush-hush@127.0.0.1:9"), storage, finished(storage, 0, 0.5)) is None
    assert "tries again" in caplog.text and "hush" not in caplog.text
    assert register_finished(config("none"), storage, finished(storage, 0, 0.5)) is None
