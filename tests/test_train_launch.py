"""Whole runs under Ray Train: two workers, resumed, killed, with errors; and a mixed run that loses a node."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from labelled_cluster import LABEL, VENDORS, labelled_cluster
from safetensors.numpy import load_file
from training_data import as_file, small_dataset, training_config

from rocktop_ray.config.training import TrainingConfig
from rocktop_ray.errors import CancelledError, SettingsError, VoiceNotFoundError
from train_loops.rvc.launch import launch
from train_loops.rvc.record import RECORD

pytestmark = [pytest.mark.xdist_group("ray"), pytest.mark.timeout(600)]
pytest.importorskip("lightning_fabric", reason="training needs it: pip install 'rocktop-ray[train]'")

TWO = {"count": 2}
STEPS = 24
"""So many that a run is still under way when a slow machine comes to ask it to end, or to kill a worker."""


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_dataset(tmp_path_factory.mktemp("launch"))


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch, ray_cluster: int) -> None:
    """The one Ray of the tests, whose Ray Train looks at its workers more often."""
    monkeypatch.setenv("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.25")
    monkeypatch.setenv("RAY_CHDIR_TO_TRIAL_DIR", "0")


def checkpoints(run: Path) -> list[Path]:
    return sorted(run.glob("checkpoints/step-*/checkpoint.safetensors"))


def two_workers(dataset: Path, out: Path) -> TrainingConfig:
    return training_config(dataset, out, workers=TWO, stop={"steps": STEPS})


def losses(run: Path) -> dict[int, dict[str, float]]:
    rows = [json.loads(line) for line in (run / "history.jsonl").read_text().splitlines()]
    return {row["step"]: {key: value for key, value in row.items() if key.startswith("loss/")} for row in rows}


def train_workers() -> list[int]:
    """Processes of the workers, in the Ray that this process started."""
    found = []
    for child in psutil.Process().children(recursive=True):
        try:
            if "RayTrainWorker" in " ".join(child.cmdline()):
                found.append(child.pid)
        except psutil.NoSuchProcess:
            continue
    return found


def once(ready: Callable[[], bool], do: Callable[[], Any]) -> threading.Thread:
    """Does it in a thread, as soon as it is time."""

    def wait() -> None:
        end = time.monotonic() + 240
        while time.monotonic() < end:
            if ready():
                do()
                return
            time.sleep(0.02)

    thread = threading.Thread(target=wait)
    thread.start()
    return thread


@pytest.fixture(scope="module")
def straight(ray_cluster: int, dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two workers without interruption."""
    out = tmp_path_factory.mktemp("straight")
    finished = launch(two_workers(dataset, out))
    assert finished.step == STEPS
    return out / "anna"


def same_end(run: Path, other: Path) -> None:
    """The last checkpoints hold the same bits, and every row of the history the same losses."""
    one, two = (load_file(checkpoints(place)[-1]) for place in (run, other))
    assert one.keys() == two.keys() and all(np.array_equal(one[name], two[name]) for name in one)
    assert losses(run) == losses(other) and sorted(losses(run)) == list(range(4, STEPS + 1, 4))


def test_a_run_leaves_what_it_should(straight: Path) -> None:
    assert [path.parent.name[:15] for path in checkpoints(straight)] == ["step-0000000020", "step-0000000024"]
    names = {path.name for path in straight.iterdir()}
    assert {"anna.pth", "anna.safetensors", "run.json", "history.jsonl", "curves.png", RECORD, "checkpoints"} <= names
    record = json.loads((straight / RECORD).read_text())
    assert record["outcome"]["reason"] == "steps" and record["outcome"]["at"]["step"] == STEPS


def test_it_goes_on_where_it_was_asked_to_end(quick: None, dataset: Path, straight: Path, tmp_path: Path) -> None:
    config = two_workers(dataset, tmp_path)
    run = tmp_path / "anna"
    asking = once(lambda: bool(checkpoints(run)), lambda: (run / "stop").touch())
    with pytest.raises(CancelledError, match=r"ended as asked after (4|8|12|16|20) steps; the same command goes on"):
        launch(config)
    asking.join()
    assert not (run / "anna.pth").exists()
    snapshot = run / "checkpoints" / "checkpoint_manager_snapshot.json"
    snapshot.write_bytes(snapshot.read_bytes()[:100])  # as if killed while it was written
    assert launch(config).step == STEPS
    same_end(run, straight)
    before = {path: path.stat().st_mtime_ns for path in checkpoints(run)}
    assert launch(config).step == STEPS  # is over: no Ray Train, no step
    assert {path: path.stat().st_mtime_ns for path in checkpoints(run)} == before


def test_a_killed_worker_is_replaced(quick: None, dataset: Path, straight: Path, tmp_path: Path) -> None:
    run = tmp_path / "anna"
    killed: list[int] = []

    def kill() -> None:
        killed.extend(train_workers()[-1:])
        os.kill(killed[0], signal.SIGKILL)

    killing = once(lambda: bool(checkpoints(run)) and len(train_workers()) == 2, kill)
    assert launch(two_workers(dataset, tmp_path)).step == STEPS
    killing.join()
    assert killed
    same_end(run, straight)


def test_an_error_that_no_retry_helps_ends_it_at_once(quick: None, dataset: Path, tmp_path: Path) -> None:
    start = {"kind": "voice", "voice": str(tmp_path / "nobody.pth")}
    with pytest.raises(VoiceNotFoundError) as caught:
        launch(training_config(dataset, tmp_path, workers=TWO, start=start))
    assert type(caught.value) is VoiceNotFoundError and "\n" not in caught.value.message


def test_another_run_in_the_same_place_is_refused(dataset: Path, straight: Path) -> None:
    out = straight.parent
    before = (straight / RECORD).read_bytes()
    for changes, told in (
        ({"recipe": {"batch_size": 3}}, "recipe.batch_size 4 -> 3"),
        ({"start": {"kind": "bundle"}}, 'start.kind "fresh" -> "bundle"'),
        ({"validation": {"share": 0.2}}, "validation.share 0.05 -> 0.2"),
    ):
        with pytest.raises(SettingsError, match="there is another run at") as caught:
            launch(training_config(dataset, out, **changes))
        assert told in caught.value.message
    assert (straight / RECORD).read_bytes() == before


def test_a_mixed_run_goes_on_without_a_lost_node(dataset: Path, tmp_path: Path) -> None:
    """By its command line, on nodes labelled as two vendors; the first of them is taken away."""
    labels = [f"{LABEL}={vendor}" for vendor in VENDORS]
    config = training_config(
        dataset, tmp_path / "out", stop={"steps": 40}, workers={"count": 2, "least": 1, "labels": labels}
    )
    as_file(config, tmp_path / "my" / "run.yaml")
    run = tmp_path / "out" / "anna"
    command = [sys.executable, "-m", "train_loops.rvc", "--config-dir", "my", "--config-name", "run"]
    with labelled_cluster() as (environment, lose):
        environment["RAY_TRAIN_HEALTH_CHECK_INTERVAL_S"] = "0.25"
        losing = once(lambda: bool(checkpoints(run)), lose)
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=500)
        losing.join()
    log = done.stdout + done.stderr
    assert done.returncode == 0, log[-5000:]
    began = [line for line in log.splitlines() if "anna: step" in line]
    assert "step 0" in began[0] and "(nvidia cpu" in began[0] and "(amd cpu" in began[0]
    assert "step 0" not in began[-1] and "nvidia" not in began[-1] and "(amd cpu" in began[-1]
    assert sorted(losses(run)) == list(range(4, 41, 4))
    assert (run / "anna.pth").exists()
