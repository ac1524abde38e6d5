"""Tracking without a server: the store that is a SQLite file of this machine."""

from __future__ import annotations

import json
import logging
import time

import pytest
from http_server import fixed, reply, serving
from tracking_parts import FINGERPRINT, facts, log, outcome, validate, voice_files
from typer.testing import CliRunner

from rocktop_ray.cli import app
from rocktop_ray.config.training import TrackingConfig
from rocktop_ray.errors import RocktopError, TrackingError, VoiceFormatError, VoiceNotFoundError
from rocktop_ray.store.local import LocalStorage
from rocktop_ray.tracking.outbox import Outbox
from rocktop_ray.tracking.place import tracking_place
from rocktop_ray.tracking.registry import VoiceReference, fetch_voice, register_voice
from rocktop_ray.tracking.tracker import Tracker
from train_loops.rvc.tracked import Tracked


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    folder = tmp_path_factory.mktemp("home")
    Tracker(tracking_place(str(folder / "tracking"))).ask()  # makes the database: seconds on a busy machine
    return folder


@pytest.fixture
def own(home, monkeypatch):
    monkeypatch.setenv("ROCKTOP_HOME", str(home))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.chdir(home)
    return home


def test_a_run_in_the_store_of_this_machine(own, caplog):
    files, notes = LocalStorage(own / "trained" / "anna"), {}
    files.write("history.jsonl", b"{}\n")
    files.write("samples/10/thinned.wav", b"RIFF")
    with Tracked.open(TrackingConfig(experiment="songs"), files) as tracked:
        tracked.on_train_start(facts(notes), log_at := outcome(0 + 1).at)
        for step in (10, 20):
            log(tracked, step)
        validate(tracked, 20, samples=2)
        tracked.on_train_end(outcome(20))
    assert log_at.step == 1 and not (own / "mlruns").exists()
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]
    tracker = Tracker(tracking_place(), "songs")
    run = tracker.client.get_run(tracked.run_id)
    assert run.info.status == "FINISHED" and run.info.run_name == "anna"
    assert run.data.metrics["loss/mel"] == 1 / 20 and run.data.metrics["best/score"] == 0.5
    history = tracker.client.get_metric_history(tracked.run_id, "loss/mel")
    assert [(entry.step, entry.value) for entry in history] == [(10, 0.1), (20, 0.05)]
    assert run.data.params["recipe.batch_size"] == "4" and run.data.params["stop.patience"] == "10"
    assert run.data.tags["dataset_fingerprint"] == FINGERPRINT and run.data.tags["reason"] == "steps"
    assert "hush" not in json.dumps([run.data.params, run.data.tags])
    dataset = run.inputs.dataset_inputs[0].dataset
    assert dataset.digest == FINGERPRINT[:36] and dataset.name == "anna" and "hush" not in dataset.source
    folder = own / "tracking" / "artifacts" / "songs" / tracked.run_id / "artifacts"
    names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    assert names == [
        *("history.jsonl", "recipe.json", "samples/10/thinned.wav", "samples/20/take 0.png", "samples/20/take 0.wav"),
        *("samples/20/take 1.png", "samples/20/take 1.wav"),
        *("samples/target/take 0.wav", "samples/target/take 1.wav", "settings.json"),
    ]
    assert "hush" not in (folder / "settings.json").read_text()
    assert json.loads(files.read("tracking.json"))["run_id"] == tracked.run_id
    assert notes["tracking"]["validations"] == 1


def test_a_resumed_training_goes_on_in_its_run(own):
    import copy

    notes: dict = {}
    with Tracked.open(TrackingConfig(experiment="songs")) as first:
        first.on_train_start(facts(notes), outcome(1).at)
        log(first, 10)
        kept = copy.deepcopy(notes)  # the checkpoint
        log(first, 20)
        log(first, 30)
        with pytest.raises(TrackingError), first:
            raise TrackingError("worker lost")
    tracker = Tracker(tracking_place(), "songs")
    assert tracker.client.get_run(first.run_id).info.status == "FAILED"
    with Tracked.open(TrackingConfig(experiment="songs")) as second:
        second.on_train_start(facts(kept, 10, stop={"patience": 3}), outcome(10).at)
        assert second._outbox.flush(10)
        assert tracker.client.get_run(second.run_id).info.status == "RUNNING"
        for step in (20, 30, 40):
            log(second, step, 9.0)
        second.on_train_end(outcome(40, "asked"))
    assert second.run_id == first.run_id
    run = tracker.client.get_run(second.run_id)
    assert run.info.status == "KILLED" and run.data.tags["resumed_from"] == "10"
    assert run.data.params["stop.patience"] == "10"
    assert json.loads(run.data.tags["changed_at_10"]) == {"stop.patience": "3"}
    history = tracker.client.get_metric_history(second.run_id, "loss/mel")
    assert [(entry.step, entry.value) for entry in history] == [(10, 0.1), (20, 0.05), (30, 1 / 30), (40, 9.0)]


def test_a_run_that_was_killed_and_is_begun_anew(own):
    files, box = LocalStorage(own / "trained" / "berta"), TrackingConfig(experiment="songs")
    killed = Tracked.open(box, files)
    killed.on_train_start(facts(), outcome(1).at)
    assert killed._outbox.flush(30)
    with Tracked.open(box, files) as anew:
        anew.on_train_start(facts(), outcome(1).at)
        log(anew, 10)
    killed._outbox.close(0)
    tracker = Tracker(tracking_place(), "songs")
    assert anew.run_id != killed.run_id
    states = [tracker.client.get_run(run_id).info.status for run_id in (killed.run_id, anew.run_id)]
    assert states == ["KILLED", "RUNNING"]
    with pytest.raises(KeyboardInterrupt), Tracked.open(box, files) as stopped:
        stopped.on_train_start(facts(), outcome(1).at)
        raise KeyboardInterrupt
    assert tracker.client.get_run(stopped.run_id).info.status == "KILLED"


def test_voices_are_registered_and_imported(own, tmp_path):
    tracker = Tracker(tracking_place(), "songs")
    run = tracker.start_run("voices", "anna", {})
    files = voice_files(tmp_path / "one")
    told = {"rate": 8000, "version": "v1", "fingerprint": FINGERPRINT, "score": 0.5, "licence": ""}
    first = register_voice(tracker, "anna", files, run_id=run.id, facts=told)
    assert register_voice(tracker, "anna", files, run_id=run.id, facts=told) == first
    second = register_voice(tracker, "anna", voice_files(tmp_path / "two", seed=1), run_id=run.id, facts=told)
    assert (first.reference, second.reference) == ("mlflow:anna/1", "mlflow:anna/2")
    version = tracker.client.get_model_version("anna", "1")
    assert version.tags["score"] == "0.5" and "licence" not in version.tags and version.run_id == run.id
    tracker.client.set_registered_model_alias("anna", "champion", "1")
    for reference, exact in (("mlflow:anna", 2), ("mlflow:anna/1", 1), ("mlflow:anna@champion", 1)):
        fetched = fetch_voice(tracker, VoiceReference.parse(reference), tmp_path)
        assert str(fetched.reference) == f"mlflow:anna/{exact}"
        assert fetched.voice.read_bytes() == (tmp_path / ("one", "two")[exact - 1] / "anna.safetensors").read_bytes()
        assert fetched.index is not None
    for missing in ("mlflow:anna/3", "mlflow:anna@other", "mlflow:berta"):
        with pytest.raises(VoiceNotFoundError, match=missing.replace("mlflow:", "mlflow:")):
            fetch_voice(tracker, VoiceReference.parse(missing), tmp_path)
    with pytest.raises(VoiceFormatError, match="more than 100"):
        fetch_voice(tracker, VoiceReference("anna"), tmp_path, max_bytes=100)
    shelf = ["--library", str(tmp_path / "voices"), "--json"]
    done = CliRunner().invoke(app, ["voices", "import", "mlflow:anna@champion", *shelf])
    assert done.exit_code == 0, done.output
    found = json.loads(done.output)
    assert (found["name"], found["index_vectors"], found["sample_rate"]) == ("anna", 30, 8000)
    done = CliRunner().invoke(app, ["voices", "import", "mlflow:anna", "--name", "second", *shelf])
    assert done.exit_code == 0, done.output


def test_a_model_that_is_no_voice(own, tmp_path):
    tracker = Tracker(tracking_place(), "songs")
    run = tracker.start_run("foreign", "foreign", {})
    for name, files in (("empty", []), ("two", ["a.pth", "b.pth"]), ("hidden", [".a.pth", "sub/a.pth"])):
        for file in files:
            tracker.log_file(run.id, f"{name}/{file}", b"x")
        tracker.client.create_registered_model(name)
        tracker.client.create_model_version(name, f"{run.artifacts}/{name}", run.id)
        with pytest.raises(RocktopError) as caught:
            fetch_voice(tracker, VoiceReference(name), tmp_path)
        assert name in caught.value.message, caught.value.message


def answers(address: str) -> dict:
    """Of a tracking server that says that version 1 of every voice lies at ``address``."""
    version = {"name": "anna", "version": "1", "status": "READY"}
    told = {
        "model-versions/search": {"model_versions": [version]},
        "model-versions/get": {"model_version": version},
        "registered-models/get": {"registered_model": {"name": "anna"}},
        "model-versions/get-download-uri": {"artifact_uri": address},
    }
    return {f"/api/2.0/mlflow/{path}": fixed(json.dumps(data).encode()) for path, data in told.items()}


@pytest.mark.parametrize(
    "address",
    [
        *(
            "file:///etc",
            "/etc",
            "etc",
            "C:\\x",
            "http://{other}/x",
            "mlflow-artifacts://{other}/x",
            "sftp://{other}/x",
        ),
        *("hdfs://{other}/x", "runs:/../../x/y", "models:/anna/1", "data:x"),
    ],
)
def test_a_server_cannot_send_us_elsewhere(tmp_path, address):
    with serving({}) as other:
        with serving(answers(address.format(other=f"127.0.0.1:{other.port}"))) as server:
            tracker = Tracker(tracking_place(server.url("")))
            for text in ("mlflow:anna", "mlflow:anna/1"):
                with pytest.raises(TrackingError) as caught:
                    fetch_voice(tracker, VoiceReference.parse(text), tmp_path)
                assert not caught.value.retryable
                assert any(word in caught.value.message for word in ("lie at", "keeps", "nowhere"))
        assert other.requests == []


@pytest.mark.parametrize("status", ["401 Unauthorized", "403 Forbidden", "404 Not Found"])
def test_a_server_that_refuses_costs_no_training(own, caplog, status):
    with serving({"*": lambda link, _: link.sendall(reply(b"You are not welcome", status=status))}) as server:
        uri = f"http://me:hush-hush@127.0.0.1:{server.port}"
        began = time.monotonic()
        with Tracked.open(TrackingConfig(uri)) as tracked:
            tracked.on_train_start(facts(), outcome(1).at)
            log(tracked, 10)
            tracked.on_train_end(outcome(10))
        assert time.monotonic() - began < 60  # nothing is waited for that was refused
        assert len(server.requests) <= 2
    assert [record.getMessage().partition(":")[0] for record in caplog.records] == ["this run is not tracked"]
    assert "hush" not in caplog.text


def test_a_server_that_is_not_there_costs_no_training(own, caplog):
    caplog.set_level(logging.WARNING)
    place = tracking_place("http://me:hush-hush@127.0.0.1:9")
    tracker = Tracker(place, "songs")
    with pytest.raises(TrackingError) as caught:
        tracker.ask()
    assert caught.value.retryable and "hush" not in caught.value.message
    outbox = Outbox(tracker.ask, first_pause=0.01, longest_pause=0.02)
    began = time.monotonic()
    with Tracked(tracker, patience=0.5, outbox=outbox) as tracked:
        tracked.on_train_start(facts(), outcome(1).at)
        for step in range(10, 1000, 10):
            log(tracked, step)
        assert time.monotonic() - began < 60
        tracked.on_train_end(outcome(1000))
    assert tracked.run_id is None and "hush" not in caplog.text and "lost" in caplog.text
