"""Workers of unequal shares and several vendors, as processes on the CPU: they are one worker, or end with an error."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import rank_work
from toy_training import toy_step

from rocktop_ray.errors import TrainingError, WorkerLostError
from train_loops.exchange.launch import Outcome, run_workers
from train_loops.exchange.shares import slots

pytestmark = [pytest.mark.xdist_group("ranks")]

STEPS = 10
LAYOUTS = {
    "one": (["cpu"], [1]),
    "two of one": (["cpu"] * 2, [3, 1]),
    "two vendors": (["nvidia", "amd"], [5, 2]),
    "2+2": (["nvidia", "nvidia", "amd", "amd"], [5, 3, 2, 1]),
    "3+1": (["nvidia", "nvidia", "nvidia", "amd"], [1, 4, 2, 3]),
    "1+1+2 mixed up": (["amd", "nvidia", "cpu", "amd"], [4, 1, 1, 6]),
}


def run(function: Callable[..., Any], labels: list[str], *arguments: Any, seconds: float = 200) -> list[Outcome]:
    preload = ("torch._dynamo", "train_loops.rvc.checkpoints", "toy_training")
    return run_workers(function, len(labels), labels, *arguments, seconds=seconds, preload=preload)


def answers(outcomes: list[Outcome]) -> list[Any]:
    for outcome in outcomes:
        if outcome.error is not None:
            raise outcome.error
    return [outcome.value for outcome in outcomes]


def difference(one: dict[str, np.ndarray], other: dict[str, np.ndarray]) -> float:
    assert list(one) == list(other)
    return max(float(np.abs(one[name].astype(float) - other[name]).max()) for name in one)


@pytest.fixture(scope="module")
def alone() -> dict[str, np.ndarray]:
    return rank_work.plain_alone(STEPS)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("bucket", [28, 1 << 20], ids=["small buckets", "one bucket"])
def test_unequal_workers_make_the_weights_of_one(layout, bucket, alone):
    labels, speeds = LAYOUTS[layout]
    given = slots(len(rank_work.FRAMES), speeds)
    found = answers(run(rank_work.plain_run, labels, given, STEPS, bucket))
    assert all(difference(alone, each["values"]) < 1e-6 for each in found)
    assert all(difference(found[0]["values"], each["values"]) == 0 == each["spread"] for each in found)
    assert all(each["unused"] and each["moved"] and each["seconds"] > 0 for each in found)
    assert set(found[0]["leaders"]) == {labels.index(label) for label in labels}


def test_a_worker_without_examples_takes_part(alone):
    given = [range(0, 7), range(7, 7), range(7, 12)]
    found = answers(run(rank_work.plain_run, ["nvidia", "nvidia", "amd"], given, STEPS, 1 << 20))
    assert all(difference(alone, each["values"]) < 1e-6 for each in found)


def test_the_comparison_would_notice_one_wrong_weight_of_an_example(alone):
    given = [range(0, 7), range(8, 12)]  # one example is missing
    found = answers(run(rank_work.plain_run, ["nvidia", "amd"], given, STEPS, 1 << 20))
    assert difference(alone, found[0]["values"]) > 1e-3


# --- the real step -----------------------------------------------------------------------------


def real_alone(last: int, epsilon: float, speeds: list[float], rank: int | None) -> tuple[dict[str, np.ndarray], Any]:
    step = toy_step(rank_work.slow_recipe(epsilon=epsilon))
    reports = rank_work.go(step, speeds, rank, None, 0, last)
    return rank_work.values(rank_work.networks(step)), reports


@pytest.mark.parametrize("layout", ["one", "two vendors", "2+2", "3+1", "1+1+2 mixed up"])
def test_generator_and_discriminator_of_unequal_workers_are_those_of_one(layout):
    """Of one that works on the whole batch at once.

    The first steps of AdamW, ``g / (|g| + epsilon)``, are as large for the smallest gradients as for the largest.
    Dividing a batch changes the rounding of gradients by some 1e-4 (they reach 45), workers or not; so the epsilon is
    above that.
    """
    labels, speeds = LAYOUTS[layout]
    weights, reports = real_alone(3, 0.1, [1.0], 0)
    found = answers(run(rank_work.real_run, labels, speeds, 0.1, 3))
    for each in found:
        assert difference(weights, each["values"]) < 1e-6
        assert difference(found[0]["values"], each["values"]) == 0
    for number, report in enumerate(reports):
        for loss in ("discriminator", "adversarial", "feature", "mel", "kl"):
            total = sum(each["reports"][number][loss] for each in found)
            assert total == pytest.approx(report[loss], rel=1e-4, abs=1e-6)
        assert found[-1]["reports"][number]["generator_norm"] == pytest.approx(report["generator_norm"], rel=1e-4)


@pytest.mark.parametrize("layout", ["two vendors", "2+2"])
def test_with_the_stock_optimizer_they_are_one_that_works_on_the_same_parts(layout):
    labels, speeds = LAYOUTS[layout]
    weights, _ = real_alone(3, 1e-9, speeds, None)
    found = answers(run(rank_work.real_run, labels, speeds, 1e-9, 3))
    assert difference(weights, found[0]["values"]) < 1e-6


def test_a_resumed_run_is_the_uninterrupted_one_with_the_same_and_with_fewer_workers(tmp_path):
    labels, speeds, path = ["nvidia", "nvidia", "amd"], [3.0, 2.0, 1.0], tmp_path / "2.safetensors"
    straight = answers(run(rank_work.real_run, labels, speeds, 0.1, 4, None, (path, 2)))
    resumed = answers(run(rank_work.real_run, labels, speeds, 0.1, 4, path))
    assert all(difference(straight[0]["values"], each["values"]) == 0 for each in resumed)
    assert [each["reports"] for each in resumed] == [each["reports"][2:] for each in straight]
    fewer = answers(run(rank_work.real_run, ["nvidia", "amd"], [1.0, 2.0], 0.1, 4, path))
    assert difference(straight[0]["values"], fewer[0]["values"]) < 1e-6


# --- what goes wrong -----------------------------------------------------------------------------


def test_an_overflow_on_one_worker_leaves_the_step_out_on_all():
    found = answers(run(rank_work.overflow, ["nvidia", "nvidia", "amd"], 1, 3))
    assert found[0] == found[1] == found[2]
    (fine, scale, first), (broken, lowered, second), (again, kept, third) = found[0]
    assert (fine, broken, again) == (True, False, True)
    assert (scale, lowered, kept) == (256.0, 128.0, 128.0)
    assert first == second
    assert third == pytest.approx(second - 0.1 * 2.0, abs=1e-5)  # the mean of 1, 2 and 3


@pytest.mark.parametrize("victim", [0, 1, 3])
def test_a_killed_worker_ends_the_others_within_seconds_with_an_error(victim):
    found = run(rank_work.lose, ["nvidia", "nvidia", "amd", "amd"], victim, "killed", 300.0)
    assert found[victim].exit_code == -9
    for rank, each in enumerate(found):
        if rank != victim:
            assert isinstance(each.error, WorkerLostError)
            assert each.error.retryable
            assert f"worker {rank} (" in each.error.message
            assert "generator's gradients (exchange 7)" in each.error.message
            assert "go on from the last checkpoint" in each.error.message
            assert each.seconds - found[victim].seconds < 60  # far below the time-out


def test_a_worker_that_hangs_ends_the_others_after_the_time_out():
    found = run(rank_work.lose, ["nvidia", "nvidia", "amd"], 2, "stopped", 10.0, seconds=45)
    assert "was ended" in str(found[2].error)
    for each in found[:2]:
        assert isinstance(each.error, WorkerLostError)
        assert "fell silent" in each.error.message


def test_a_worker_that_fails_tells_the_others_why():
    found = run(rank_work.lose, ["nvidia", "amd", "amd"], 2, "fails", 300.0)
    assert str(found[2].error) == "example 7 is broken"
    for each in found[:2]:
        assert isinstance(each.error, WorkerLostError)
        assert each.error.message.startswith("worker 2 (amd cpu on ")
        assert each.error.message.endswith("failed: TrainingError: example 7 is broken")


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("weights", "worker 2 .* and worker 0 do not hold the same weights"),
        ("network", "do not hold the same network"),
        ("order", "not at the same exchange"),
        ("sizes", "other weights"),
        ("none", "no worker has any frames for the discriminator"),
    ],
)
def test_workers_that_do_not_agree_are_told_so(how, message):
    for outcome in run(rank_work.disagree, ["nvidia", "nvidia", "amd"], how):
        with pytest.raises(TrainingError, match=message):
            answers([outcome])


def test_speeds_sums_and_spread_are_the_same_everywhere():
    found = answers(run(rank_work.small_things, ["nvidia", "nvidia", "amd"], [6.0, 0.0, 2.0]))
    assert found[0] == found[1] == found[2]
    assert found[0] == {"speeds": (6.0, 2.0, 2.0), "sizes": [6, 2, 2], "sum": [3.0, 3.0], "spread": 0.5}
