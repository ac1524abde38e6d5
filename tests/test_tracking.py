"""Tracking without a server: where it goes, the outbox, and the store that is a SQLite file of this machine."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from http_server import fixed, reply, serving
from hypothesis import given
from hypothesis import strategies as st
from tracking_parts import FINGERPRINT, facts, log, outcome, validate, voice_files
from typer.testing import CliRunner

from rocktop_ray.cli import app
from rocktop_ray.config.training import TrackingConfig
from rocktop_ray.errors import RocktopError, SettingsError, TrackingError, VoiceFormatError, VoiceNotFoundError
from rocktop_ray.store.local import LocalStorage
from rocktop_ray.tracking.outbox import Outbox, Parcel
from rocktop_ray.tracking.place import masked, tracking_place
from rocktop_ray.tracking.registry import VoiceReference, fetch_voice, register_voice
from rocktop_ray.tracking.tracker import Tracker, plain_key
from train_loops.rvc.tracked import Tracked, _kept, flat

REPOSITORY = Path(__file__).parent.parent


# --- where it goes ----------------------------------------------------------------------------------------------------


def test_places(tmp_path, monkeypatch):
    monkeypatch.setenv("ROCKTOP_HOME", str(tmp_path / "home"))
    own = tracking_place("", {})
    assert own.uri == f"sqlite:///{tmp_path}/home/tracking/mlflow.db" and not own.remote
    assert own.artifacts == f"file://{tmp_path}/home/tracking/artifacts"
    told = {"MLFLOW_TRACKING_URI": "http://server:5000/"}
    assert tracking_place("", told).uri == "http://server:5000" and tracking_place("", told).remote
    assert tracking_place("https://other", told).uri == "https://other"
    assert tracking_place("none", told) is None and tracking_place("", {"MLFLOW_TRACKING_URI": "NONE"}) is None
    assert tracking_place(str(tmp_path / "here"), {}).uri == f"sqlite:///{tmp_path}/here/mlflow.db"
    assert tracking_place((tmp_path / "here").as_uri(), {}).uri == f"sqlite:///{tmp_path}/here/mlflow.db"
    assert tracking_place(f"sqlite:///{tmp_path}/a.db", {}).artifacts == f"file://{tmp_path}/artifacts"
    assert not tracking_place("postgresql+psycopg2://me:pw@db/runs", {}).remote
    assert not (tmp_path / "home").exists()


@pytest.mark.parametrize("uri", ["htp://x", "http://", "http://a b", "http://[::1", "sqlite://", "http://a/?x=1"])
def test_what_is_no_place(uri):
    with pytest.raises(SettingsError, match="none"):
        tracking_place(uri, {})


@given(st.text(st.characters(exclude_characters="/ ?#[]@:\n\r\t", min_codepoint=33, max_codepoint=126), min_size=4))
def test_secrets_are_never_shown(password):
    place = tracking_place(f"https://me:{password}@tracking.example:5000/root", {})
    shown = place.masked(f"cannot reach {place.uri}/api?token={password} with '{password}'")
    rest = "cannot reach https://***@tracking.example:5000/root/api?... with '***' TrackingPlace(uri shown artifacts"
    assert password in rest or (password not in shown and password not in repr(place) and password not in place.shown)


def test_masked_leaves_the_rest():
    assert masked("see http://a.example/b: what? a=b") == "see http://a.example/b: what? a=b"
    assert masked("postgresql://u:p@w@db/x s3://b/c") == "postgresql://***@db/x s3://b/c"


def test_without_mlflow_all_else_works(tmp_path):
    (tmp_path / "mlflow.py").write_text("raise ModuleNotFoundError(\"No module named 'mlflow'\", name='mlflow')")
    code = """
import sys
sys.path.insert(0, sys.argv[1])
import rocktop_ray.cli, rocktop_ray.tracking.registry
from rocktop_ray.errors import SettingsError
from rocktop_ray.tracking.place import tracking_place
from rocktop_ray.tracking.tracker import Tracker
assert "mlflow" not in sys.modules and tracking_place("none") is None
try:
    Tracker(tracking_place())
except SettingsError as error:
    assert "pip install 'rocktop-ray[track]'" in error.message, error.message
else:
    raise AssertionError
"""
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], cwd=REPOSITORY, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


# --- the outbox -------------------------------------------------------------------------------------------------------


class Store:
    """Takes what it is given, or is down, or refuses what it is told to refuse."""

    def __init__(self) -> None:
        self.down = False
        self.got: list[str] = []
        self.refuses: set[str] = set()
        self.chokes: set[str] = set()
        self.tries = 0

    def ask(self) -> None:
        if self.down:
            raise TrackingError("cannot reach store", retryable=True)

    def parcel(self, name: str, size: int = 0, **more: bool) -> Parcel:
        def work() -> None:
            self.tries += 1
            self.ask()
            if name in self.refuses:
                raise TrackingError(f"no {name}", retryable=False)
            if name in self.chokes:
                raise TrackingError(f"fault at {name}", retryable=True)
            self.got.append(name)

        return Parcel(work, "values", size, **more)


@pytest.fixture
def store():
    return Store()


@pytest.fixture
def outbox(store):
    made = Outbox(store.ask, most_bytes=1000, first_pause=0.01, longest_pause=0.05)
    yield made
    made.close(0)


def test_order_is_kept_over_an_outage(store, outbox, caplog):
    outbox.put(store.parcel("a"))
    assert outbox.flush(5)
    store.down = True
    for name in "bcd":
        outbox.put(store.parcel(name))
    assert not outbox.flush(0.3)
    assert store.got == ["a"]
    store.down = False
    assert outbox.flush(5)
    outbox.put(store.parcel("e"))
    assert outbox.close(5) == 0 and store.got == list("abcde")
    told = [record.getMessage() for record in caplog.records]
    assert [line.split()[0] for line in told] == ["cannot", "tracking"], told  # once down, once back


@pytest.mark.parametrize("asked", [1, 4])
def test_a_store_that_comes_back_while_it_is_asked(store, outbox, monkeypatch, asked):
    store.down, calls = True, []

    def alive() -> None:
        calls.append(1)
        store.down = len(calls) < asked
        store.ask()

    monkeypatch.setattr(outbox, "_alive", alive)
    outbox.put(store.parcel("a"))
    assert outbox.close(5) == 0 and store.got == ["a"]


def test_what_is_refused_costs_itself_only(store, outbox, caplog):
    store.refuses, store.chokes = {"b", "c"}, {"d"}
    for name in "abcde":
        outbox.put(store.parcel(name))
    assert outbox.close(5) == 3 and store.got == ["a", "e"]
    assert len(caplog.records) == 1  # told once for values


def test_a_beginning_that_is_refused_ends_tracking(store, outbox, caplog):
    store.refuses = {"a"}
    outbox.put(store.parcel("a", vital=True))
    for name in "bc":
        outbox.put(store.parcel(name))
    assert outbox.flush(5) and outbox.close(5) >= 1 and store.got == []
    assert "not tracked: no a" in caplog.text


def test_memory_is_bounded_and_files_go_first(store, caplog):
    outbox = Outbox(store.ask, most_bytes=100_000, first_pause=0.01, longest_pause=0.05)
    store.down = True
    outbox.put(store.parcel("start", vital=True))
    for number in range(6):
        outbox.put(store.parcel(f"file {number}", 40_000))
        outbox.put(store.parcel(f"value {number}", 100))
    store.down = False
    assert outbox.flush(5)
    assert [name for name in store.got if "value" in name] == [f"value {number}" for number in range(6)]
    assert [name for name in store.got if "file" in name] == ["file 4", "file 5"] and store.got[0] == "start"
    assert outbox.close(1) == 4


def test_the_end_waits_no_longer_than_told(store, caplog):
    outbox = Outbox(store.ask, first_pause=0.05, longest_pause=3600)
    store.down = True
    for name in "abc":
        outbox.put(store.parcel(name))
    began = time.monotonic()
    assert outbox.close(0.5) == 3 and time.monotonic() - began < 60
    assert "3 entries are lost" in caplog.text
    outbox.put(store.parcel("d"))
    assert store.got == []


def test_a_pause_is_cut_short_at_the_end(store):
    outbox = Outbox(store.ask, first_pause=0.05, longest_pause=3600)
    store.down = True
    outbox.put(store.parcel("a"))
    time.sleep(1.0)  # pauses are long by now
    threading.Timer(0.2, lambda: setattr(store, "down", False)).start()
    assert outbox.close(5) == 0 and store.got == ["a"]


def test_a_fault_in_the_client_does_not_end_the_thread(store, outbox, caplog):
    outbox.put(Parcel([].pop, "values"))
    outbox.put(store.parcel("a"))
    assert outbox.close(5) == 1 and store.got == ["a"] and "IndexError" in caplog.text


# --- names ------------------------------------------------------------------------------------------------------------


@given(st.text(max_size=300))
def test_plain_keys_are_as_mlflow_wants_them(text):
    Tracker(tracking_place("http://127.0.0.1:9"))  # imports MLflow as it should be
    from mlflow.utils.validation import _validate_metric_name

    key = plain_key(text)
    _validate_metric_name(key)
    assert plain_key(key) == key


def test_references():
    assert VoiceReference.parse("mlflow:anna") == VoiceReference("anna")
    assert VoiceReference.parse("mlflow:anna b/12") == VoiceReference("anna b", "12")
    assert str(VoiceReference.parse("mlflow:anna@cham-pion_1")) == "mlflow:anna@cham-pion_1"


@pytest.mark.parametrize(
    "text",
    [
        *("anna", "mlflow:", "mlflow:../x", "mlflow:a/b/c", "mlflow:a/0", "mlflow:a/1@b", "mlflow:a@", "mlflow:a@b'c"),
        *("mlflow:a' OR 1=1", "mlflow:a/-1", "mlflow:a/1x", "mlflow:http://evil/x", "mlflow:bundle"),
    ],
)
def test_what_is_no_reference(text):
    with pytest.raises(SettingsError, match="mlflow:NAME"):
        VoiceReference.parse(text)


def test_flat_settings():
    assert flat({"a": {"b": 1, "c": (1, 2)}, "d": None}) == {"a.b": 1, "a.c": "[1, 2]", "d": None}


def test_samples_are_kept_of_ever_fewer_validations():
    kept = [number for number in range(1, 2001) if _kept(number)]
    assert kept[:17] == [*range(1, 17), 18] and len(kept) < 80 and max(kept) > 1700


# --- the store of this machine ----------------------------------------------------------------------------------------


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
