"""The training loop on the CPU: it learns, resumes exactly, stops where it should, and its workers stay together."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import loop_work
import numpy as np
import pytest

from rocktop_ray.errors import SettingsError, TrainingError, WorkerLostError
from train_loops.dataset.config import DatasetConfig
from train_loops.dataset.features import Identity
from train_loops.dataset.manifest import Manifest
from train_loops.exchange.launch import run_workers
from train_loops.rvc.resolve import recipe_for
from train_loops.rvc.stopping import BestScore

pytestmark = [pytest.mark.xdist_group("ranks")]


def run(labels: list[str], *arguments: Any, seconds: float = 250, **options: Any) -> list[Any]:
    preload = ("torch._dynamo", "loop_work")
    outcomes = run_workers(loop_work.train, len(labels), labels, *arguments, options, seconds=seconds, preload=preload)
    for outcome in outcomes:
        if outcome.error is not None:
            raise outcome.error
    return [outcome.value for outcome in outcomes]


def difference(one: dict[str, np.ndarray], other: dict[str, np.ndarray]) -> float:
    assert list(one) == list(other)
    return max(float(np.abs(one[name] - other[name]).max()) for name in one)


def test_it_learns_and_tells_of_it(tmp_path: Path) -> None:
    (found,) = run(["cpu"], tmp_path, {"stop": {"steps": 40}, "validation": {"every_steps": 20}})
    kinds = [kind for kind, *_ in found["told"]]
    assert kinds[0] == "on_train_start" and kinds[-1] == "on_train_end"
    logs = [(step, values) for kind, step, values in found["told"] if kind == "on_log"]
    assert [step for step, _ in logs] == [*range(4, 44, 4)]
    assert logs[-1][1]["loss/mel"] < 0.9 * logs[0][1]["loss/mel"]
    assert all(0 <= values["speed/loader_wait"] <= 1.01 and values["speed/audio_per_second"] > 0 for _, values in logs)
    assert [step for kind, step, _ in found["told"] if kind == "on_validation_end"] == [20, 40]
    assert found["outcome"]["reason"] == "steps" and found["outcome"]["at"]["step"] == 40


@pytest.mark.parametrize("labels", [["cpu"], ["nvidia", "amd"]], ids=["one worker", "two vendors"])
def test_a_resumed_run_is_the_uninterrupted_one(tmp_path: Path, labels: list[str]) -> None:
    settings = {"stop": {"steps": 8}, "checkpoints": {"every_steps": 4}, "validation": {"every_steps": 4}}
    straight = run(labels, tmp_path / "a", settings)
    first = run(labels, tmp_path / "b", {**settings, "stop": {"steps": 4}})
    resumed = run(labels, tmp_path / "b", settings)
    assert first[0]["outcome"]["at"]["step"] == 4
    assert difference(straight[0]["weights"], resumed[0]["weights"]) == 0
    assert resumed[0]["outcome"]["best_step"] == straight[0]["outcome"]["best_step"]
    assert resumed[0]["outcome"]["best_score"] == straight[0]["outcome"]["best_score"]
    late = {step: values for kind, step, values in straight[0]["told"] if kind == "on_log" and step > 4}
    again = {step: values for kind, step, values in resumed[0]["told"] if kind == "on_log"}
    assert set(late) == set(again)
    for step, values in again.items():
        assert {k: v for k, v in values.items() if k.startswith("loss")} == {
            k: v for k, v in late[step].items() if k.startswith("loss")
        }
    assert resumed[0]["notes"]["seen"] == ["start at 0", "start at 4"]  # what listeners keep comes back
    assert resumed[0]["outcome"]["at"]["seconds"] > first[0]["outcome"]["at"]["seconds"]


def test_unequal_workers_make_the_weights_of_one_and_shares_follow_speed(tmp_path: Path) -> None:
    """Also after speeds were measured. The epsilon is above the rounding of gradients, see test_exchange_ranks."""
    settings = {"stop": {"steps": 26}, "recipe": {"optimizer": {"epsilon": 0.1, "learning_rate": 1e-5}}}
    (alone,) = run(["cpu"], tmp_path / "a", settings)
    several = run(["nvidia", "amd"], tmp_path / "b", settings, slow_rank=1)
    assert difference(alone["weights"], several[0]["weights"]) < 1e-6
    assert difference(several[0]["weights"], several[1]["weights"]) == 0
    assert several[0]["examples"][0] == several[1]["examples"][0] == 2
    assert several[0]["examples"][-1] == 3 and several[1]["examples"][-1] == 1
    assert [each["told"] == [] for each in several] == [False, True]
    one, other = (
        [values["loss/generator"] for kind, _, values in each["told"] if kind == "on_log"]
        for each in (alone, several[0])
    )
    assert one == pytest.approx(other, rel=1e-3)


def test_it_ends_when_the_score_gets_no_better(tmp_path: Path) -> None:
    settings = {"stop": {"patience": 2, "steps": 100}, "validation": {"every_steps": 4}}
    (found,) = run(["cpu"], tmp_path, settings, scores=[3.0, 2.0, 1.9999, 2.5, 1.0])
    outcome = found["outcome"]
    assert (outcome["reason"], outcome["at"]["step"], outcome["best_step"], outcome["best_score"]) == (
        "patience",
        16,
        8,
        2.0,
    )
    improved = [values["improved"] for kind, _, values in found["told"] if kind == "on_validation_end"]
    assert improved == [True, True, False, False]
    (again,) = run(["cpu"], tmp_path, settings, scores=[1.0])
    assert again["outcome"]["reason"] == "patience" and again["outcome"]["at"]["step"] == 16  # nothing is trained
    (longer,) = run(["cpu"], tmp_path, {**settings, "stop": {"patience": 3, "steps": 20}}, scores=[1.0])
    assert longer["outcome"]["reason"] == "steps" and longer["outcome"]["best_step"] == 20


@pytest.mark.parametrize(
    ("stop", "reason", "step"),
    [({"epochs": 3}, "epochs", 6), ({"minutes": 1e-7}, "minutes", 4), ({"steps": 3, "epochs": 9}, "steps", 3)],
)
def test_the_first_bound_ends_it(tmp_path: Path, stop: dict[str, Any], reason: str, step: int) -> None:
    (found,) = run(["cpu"], tmp_path, {"stop": stop})
    assert (found["outcome"]["reason"], found["outcome"]["at"]["step"]) == (reason, step)
    assert found["saved"][-1] == step  # the end can always be gone on from


def test_who_asks_ends_it_on_all_workers(tmp_path: Path) -> None:
    found = run(["cpu", "cpu"], tmp_path, {"stop": {"steps": 100}}, ask_after=1)
    assert [each["outcome"]["reason"] for each in found] == ["asked", "asked"]


def test_an_error_of_one_worker_ends_all(tmp_path: Path) -> None:
    outcomes = run_workers(
        loop_work.train,
        2,
        ["nvidia", "amd"],
        tmp_path,
        {"stop": {"steps": 100}},
        {"break_rank": 1, "break_at": 2},
        seconds=250,
    )
    assert isinstance(outcomes[1].error, TrainingError) and "cannot be trained on" in str(outcomes[1].error)
    assert isinstance(outcomes[0].error, WorkerLostError)


def test_the_best_score_is_remembered() -> None:
    best = BestScore(patience=2, gain=0.1)
    assert best.add(1, 1.0) and not best.add(2, 0.95) and best.add(3, 0.85) and not best.exhausted
    other = BestScore(patience=1, gain=0.1)
    other.recall(best.notes())
    assert not other.add(4, 0.8) and other.exhausted and other.step == 3
    never = BestScore(patience=0, gain=0.0)
    assert never.add(0, 1.0) and not any(never.add(step, 1.0) for step in range(9)) and not never.exhausted


# --- the recipe of a dataset -----------------------------------------------------------------------------------------


def manifest(rate: int = 48_000, dim: int = 768, pitch: str = "fcpe", speakers: int = 1) -> Manifest:
    networks = Identity("hubert-v2" if dim == 768 else "other", dim, "", pitch, "")
    return Manifest("takes", DatasetConfig(rate=rate), networks, [f"s{number}" for number in range(speakers)], [])


def test_the_recipe_takes_from_the_dataset_what_is_left_open() -> None:
    config = loop_work.config(
        {"recipe": {"stock": "v2-48k", "batch_size": 7, "segment_frames": None, "losses": {"mel": None}}}
    )
    recipe = recipe_for(config, manifest(speakers=3))
    assert (recipe.synthesizer.speakers, recipe.batch_size, recipe.segment_frames) == (3, 7, 36)
    assert recipe.synthesizer.uses_f0 and recipe.synthesizer.content_dim == 768
    other = recipe_for(config, manifest(dim=512, pitch="none"))
    assert not other.synthesizer.uses_f0 and other.synthesizer.content_dim == 512
    pretrained = replace(config, start=replace(config.start, kind="pretrained", generator="f0G48k.pth"))
    assert recipe_for(pretrained, manifest()).synthesizer.speakers == 109


@pytest.mark.parametrize(
    ("recipe", "facts", "words"),
    [
        ({"stock": "v2-48k"}, {"rate": 40_000}, "v2-40k"),
        ({"stock": "v2-48k", "f0": True}, {"pitch": "none"}, "recipe.f0=false"),
        ({"stock": "v2-48k", "speakers": 2}, {"speakers": 3}, "3 speakers"),
        ({"stock": "v2-48k", "synthesizer": {"content_dim": 256}}, {}, "--encoder"),
        ({"stock": "v2-48k", "bach_size": 2}, {}, "bach_size"),
        ({"stock": "v7"}, {}, "no stock configuration"),
    ],
)
def test_a_recipe_that_does_not_go_with_the_dataset_is_refused(recipe: Any, facts: Any, words: str) -> None:
    with pytest.raises(SettingsError, match=words):
        recipe_for(loop_work.config({"recipe": recipe}), manifest(**facts))
