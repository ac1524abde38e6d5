"""What decides how a training run goes on, without Ray running: its record, checkpoints, errors and devices."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
from training_data import recipe_16k, training_config

from rocktop_ray.config.training import WorkersConfig
from rocktop_ray.errors import RocktopError, SettingsError, TrainingError, WorkerLostError
from rocktop_ray.store.local import LocalStorage
from rocktop_ray.store.settings import StorageSettings
from train_loops.rvc.callbacks import Outcome, Standing
from train_loops.rvc.launch import run_storage
from train_loops.rvc.record import RECORD, Record, check_latest

pytest.importorskip("lightning_fabric", reason="training needs it: pip install 'rocktop-ray[train]'")

OUTCOME = Outcome("steps", Standing(12, 4, 3, 5.5), 8, 1.25, {"validation/mel": 0.5})


def record(changes: dict[str, Any] | None = None, recipe: dict[str, Any] | None = None, data: str = "abc") -> Record:
    made = recipe_16k(batch_size=4, **(recipe or {}))
    return Record.of(training_config(**{"dataset": "set", "out": "out", **(changes or {})}), made, data)


# --- the record of a run ----------------------------------------------------------------------------------------------


def test_a_record_comes_back_as_it_was(tmp_path: Path) -> None:
    run = LocalStorage(tmp_path)
    assert Record.read(run) is None
    ended = replace(record(), outcome=asdict(OUTCOME))
    ended.write(run)
    found = Record.read(run)
    assert found == ended and found.ended() == OUTCOME
    check_latest(run, ended.attempt)
    record().write(run)
    with pytest.raises(TrainingError, match="started anew"):
        check_latest(run, ended.attempt)
    (tmp_path / RECORD).write_text("{")
    with pytest.raises(TrainingError, match="cannot be read"):
        Record.read(run)


def test_secrets_are_not_written(tmp_path: Path) -> None:
    uri = "https://user:secret@mlflow.example/?token=secret"
    record({"tracking": {"uri": uri}}).write(LocalStorage(tmp_path))
    assert "secret" not in (tmp_path / RECORD).read_text()


@pytest.mark.parametrize(
    "changes",
    [
        {"stop": {"steps": 99}},
        {"workers": {"count": 7}},
        {"checkpoints": {"keep": 5}},
        {"export": {"index": True}},
        {"validation": {"every_steps": 8}},
        {"dataset": "moved/set"},
    ],
)
def test_what_may_change_between_attempts(changes: dict[str, Any]) -> None:
    record(changes).check_continues(record(), "here")


def test_how_it_learns_may_change() -> None:
    optimizer = replace(recipe_16k().optimizer, learning_rate=1e-5)
    record(recipe={"optimizer": optimizer, "precision": "bf16", "accumulation": 2}).check_continues(record(), "here")


@pytest.mark.parametrize(
    ("other", "told"),
    [
        (record(recipe={"seed": 5}), "recipe.seed 1234 -> 5"),
        (record(recipe={"segment_frames": 18}), "recipe.segment_frames 16 -> 18"),
        (record({"start": {"kind": "voice", "voice": "berta"}}), 'start.kind "fresh" -> "voice", start.voice'),
        (record({"validation": {"share": 0.1}}), "validation.share 0.05 -> 0.1"),
        (record(data="def"), "the content of the dataset"),
    ],
)
def test_another_run_in_its_place_is_refused(other: Record, told: str) -> None:
    with pytest.raises(SettingsError, match="there is another run at here") as caught:
        other.check_continues(record(), "here")
    assert told in caught.value.message and len(caught.value.message) < 600


def test_when_a_run_is_over() -> None:
    config = training_config("set", "out")
    assert not record().is_over(config)
    assert replace(record(), outcome=asdict(OUTCOME)).is_over(config)
    assert not replace(record(), outcome=asdict(OUTCOME)).is_over(training_config("set", "out", stop={"steps": 13}))
    assert not replace(record(), outcome=asdict(replace(OUTCOME, reason="asked"))).is_over(config)


def test_where_a_run_is_kept(tmp_path: Path) -> None:
    def place(out: str, name: str = "anna é 2") -> str:
        return run_storage(training_config("set", out, name=name), StorageSettings(region="x")).url

    assert place(str(tmp_path)) == (tmp_path / "anna é 2").as_uri()
    assert place(tmp_path.as_uri() + "/") == (tmp_path / "anna é 2").as_uri()
    assert place(str(tmp_path), "100%?") == (tmp_path / "100%?").as_uri()
    assert place("s3://bucket/a/", "anna") == "s3://bucket/a/anna"
    assert place("s3://bucket", "anna") == "s3://bucket/anna"


# --- checkpoints ------------------------------------------------------------------------------------------------------


def checkpoint(run: Path, step: int, mark: str = "0", *, whole: bool = True) -> str:
    name = f"step-{step:010}-{mark * 8}"
    (run / "checkpoints" / name).mkdir(parents=True)
    if whole:
        (run / "checkpoints" / name / "checkpoint.safetensors").write_bytes(b"weights")
    return name


def snapshot(run: Path, names: list[str], version: str | None = None) -> Path:
    import ray

    path = run / "checkpoints" / "checkpoint_manager_snapshot.json"
    results = [{"checkpoint_dir_name": name, "metrics": {}} for name in names]
    path.write_text(json.dumps({"ray_version": version or ray.__version__, "checkpoint_results": results}))
    return path


def left(run: Path) -> set[str]:
    return {path.parent.name for path in run.glob("checkpoints/*/checkpoint.safetensors")}


def test_checkpoints_on_the_list_and_the_latest_stay_and_others_go(tmp_path: Path) -> None:
    from train_loops.rvc.kept import mend

    run = LocalStorage(tmp_path)
    mend(run)
    known = [checkpoint(tmp_path, 4), checkpoint(tmp_path, 8)]
    path = snapshot(tmp_path, known)
    checkpoint(tmp_path, 6)
    latest = checkpoint(tmp_path, 12)  # killed before it was put on the list
    (tmp_path / "checkpoints" / "mine").mkdir()
    (tmp_path / "checkpoints" / "mine" / "checkpoint.safetensors").write_bytes(b"somebody's")
    mend(run)
    assert left(tmp_path) == {*known, latest, "mine"} and path.exists()


@pytest.mark.parametrize("fault", ["cut", "missing", "version", "lost", "empty"])
def test_without_a_list_the_latest_file_counts(tmp_path: Path, fault: str) -> None:
    from train_loops.rvc.kept import mend

    checkpoint(tmp_path, 4)
    latest = checkpoint(tmp_path, 100, "b")
    checkpoint(tmp_path, 200, whole=False)
    path = snapshot(tmp_path, [latest], "1.0" if fault == "version" else None)
    if fault == "cut":
        path.write_bytes(path.read_bytes()[:50])
    elif fault == "missing":
        path.unlink()
    elif fault == "lost":
        snapshot(tmp_path, [latest, f"step-{300:010}-00000000"])
    elif fault == "empty":
        path.write_bytes(b"")
    mend(LocalStorage(tmp_path))
    assert left(tmp_path) == {latest} and not path.exists()


# --- errors -----------------------------------------------------------------------------------------------------------


class OutOfMemoryError(RuntimeError):
    """Stands in for torch's."""


def test_which_errors_end_a_run() -> None:
    from ray.exceptions import RayActorError
    from ray.train.v2.api.exceptions import WorkerGroupError

    from train_loops.rvc.ray_train import final_error, told

    settings = SettingsError("give another rate")
    assert final_error(1, settings) is settings
    assert final_error(0, WorkerLostError("worker 1 is gone")) is None
    assert final_error(0, RayActorError()) is None
    unknown = final_error(2, KeyError("x"))
    assert isinstance(unknown, TrainingError) and unknown.message == "worker 2 failed: KeyError: 'x'"
    memory = final_error(0, OutOfMemoryError("CUDA out of memory. Tried...\nmore"))
    assert isinstance(memory, TrainingError) and "recipe.batch_size" in memory.message and "\n" not in memory.message
    lost = told(WorkerGroupError("many lines", {1: RayActorError()}))
    assert isinstance(lost, WorkerLostError) and "worker 1 was lost" in lost.message
    both = told(WorkerGroupError("many lines", {0: WorkerLostError("worker 1 failed"), 1: settings}))
    assert both is settings


def test_a_final_error_is_raised_in_the_controller() -> None:
    from train_loops.rvc.ray_train import OnlyRetryable

    OnlyRetryable().after_exception(None, {0: WorkerLostError("gone")})
    with pytest.raises(RocktopError, match="no such voice"):
        OnlyRetryable().after_exception(None, {0: WorkerLostError("gone"), 1: SettingsError("no such voice")})


# --- who works where --------------------------------------------------------------------------------------------------


def test_labels_for_all_and_for_some_workers() -> None:
    from train_loops.rvc.ray_train import any_of, scaling

    labels = ("rocktop.io/vendor=nvidia", "rocktop.io/vendor=amd")
    made = scaling(WorkersConfig(count=2, least=1, labels=labels, threads=3))
    assert made.num_workers == (1, 2) and made.resources_per_worker == {"CPU": 3}
    exact = [{"rocktop.io/vendor": "nvidia"}, {"rocktop.io/vendor": "amd"}]
    assert made._label_selector_per_worker(2) == exact
    assert made._label_selector_per_worker(1) == [{"rocktop.io/vendor": "in(amd,nvidia)"}]
    assert any_of([{"a": "1"}, {"b": "2"}]) is None
    plain = scaling(WorkersConfig(count=2, least=2, gpu=True))
    assert plain.num_workers == 2 and plain.use_gpu and plain._label_selector_per_worker(2) is None


def test_workers_of_an_amd_node_count_their_devices_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    """As Ray and Ray Train set the variables on a node with two AMD GPUs, for the worker with the second one."""
    from ray.train.torch import TorchConfig

    from train_loops.rvc import ray_train

    monkeypatch.setenv("HIP_VISIBLE_DEVICES", "1")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    ray_train.share_devices()
    assert os.environ["HIP_VISIBLE_DEVICES"] == "0,1"
    monkeypatch.delenv("HIP_VISIBLE_DEVICES")  # NVIDIA
    ray_train.share_devices()
    assert "HIP_VISIBLE_DEVICES" not in os.environ

    order: list[str] = []
    theirs = TorchConfig().backend_cls
    monkeypatch.setattr(theirs, "on_start", lambda *_: order.append("process group"))

    class Group:
        def execute(self, function: Any) -> None:
            order.append(function.__name__)

    backend = ray_train.GlooConfig(backend="gloo").backend_cls()
    assert isinstance(backend, theirs)
    backend.on_start(Group(), ray_train.GlooConfig(backend="gloo"))
    assert order == ["share_devices", "process group"]
