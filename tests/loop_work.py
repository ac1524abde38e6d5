"""What workers of ``test_train_loop`` do: a run of the toy voice, with everything told written down."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
from rank_work import groups_of
from toy_training import buzz, toy_recipe, toy_step

from rocktop_ray.config.training import TrainingConfig
from train_loops.exchange.state import named_tensors, send_state
from train_loops.rvc import checkpoints
from train_loops.rvc.batches import Batch
from train_loops.rvc.callbacks import Facts, ValidationResult
from train_loops.rvc.checkpoints import Progress
from train_loops.rvc.examples import Example
from train_loops.rvc.loop import TrainLoop, send_progress
from train_loops.rvc.recipe import Recipe
from train_loops.rvc.step import PARTS, AdversarialStep


def config(settings: Mapping[str, Any]) -> TrainingConfig:
    base = {
        "name": "toy",
        "dataset": "none",
        "log_every_steps": 4,
        "checkpoints": {"every_steps": 0, "every_minutes": 0.0},
        "validation": {"every_steps": 0},
    }
    return TrainingConfig.from_mapping({**base, **settings})


class Slices(Sequence[Any]):
    """Stands in for the training part of a dataset: eight slices, two batches an epoch."""

    def __init__(self, recipe: Recipe, broken: int | None = None) -> None:
        self._examples = [
            buzz(recipe, 20 + 4 * number, 150 + 30 * number, number % recipe.synthesizer.speakers, number)
            for number in range(8)
        ]
        if broken is not None:
            self._examples[broken].wave[:] = np.nan
        self.frames = np.array([20 + 4 * number for number in range(8)])

    def __len__(self) -> int:
        return len(self._examples)

    def __getitem__(self, number: Any) -> Example:
        return self._examples[number]


class FolderKeeper:
    """Keeps the latest checkpoint in a file."""

    def __init__(self, folder: Path, rank: int) -> None:
        self.path, self.rank, self.saved = folder / "checkpoint.safetensors", rank, []
        folder.mkdir(parents=True, exist_ok=True)

    def save(self, step: AdversarialStep, progress: Progress, metrics: dict[str, float]) -> None:
        self.saved.append(progress.step)
        if self.rank == 0:
            checkpoints.save(self.path, step, progress)


class Judge:
    def __init__(self, scores: list[float] | None) -> None:
        self._scores = iter(scores) if scores is not None else None

    def run(self, step: AdversarialStep) -> ValidationResult:
        weight = next(iter(step.generator.parameters()))
        score = next(self._scores) if self._scores is not None else float(weight.detach().square().sum())
        return ValidationResult(score, {"validation/size": score})


class Told:
    """Writes down what listeners hear."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, int, Any]] = []

    def __call__(self, name: str, *arguments: Any, improved: bool = False) -> None:
        if name == "on_train_start":
            facts, at = arguments
            facts.notes.setdefault("seen", []).append(f"start at {at.step}")
            self.calls.append((name, at.step, dict(facts.notes)))
        elif name == "on_train_end":
            self.calls.append((name, arguments[0].at.step, None))
        elif name == "on_validation_end":
            self.calls.append((name, arguments[0].step, {**arguments[1].metrics, "improved": improved}))
        else:
            self.calls.append((name, arguments[0].step, dict(arguments[1]) if len(arguments) > 1 else None))


class SlowStep:
    """The step of a slower worker: its time grows with its examples."""

    def __init__(self, step: AdversarialStep, slow: bool, counted: list[int]) -> None:
        self._step, self._slow, self._counted = step, slow, counted

    def __getattr__(self, name: str) -> Any:
        return getattr(self._step, name)

    def run(self, parts: Sequence[Batch], **options: Any) -> Any:
        examples = sum(len(part.lengths) for part in parts)
        self._counted.append(examples)
        exchange = options["exchange"]
        before = exchange.seconds
        start = time.perf_counter()
        report = self._step.run(parts, **options)
        own = time.perf_counter() - start - (exchange.seconds - before)
        if self._slow:  # in proportion: how busy the machine is does not change who is faster
            time.sleep(9 * own)
        return report


def train(
    rank: int, labels: Sequence[str], folder: Path, settings: Mapping[str, Any], options: Mapping[str, Any]
) -> dict[str, Any]:
    """One worker of a run, resumed from the folder's checkpoint if there is one."""
    settings = dict(settings)
    recipe = toy_recipe(batch_size=4)
    optimizer = settings.pop("recipe", {}).get("optimizer", {})
    recipe = replace(recipe, optimizer=replace(recipe.optimizer, **optimizer))
    with groups_of(labels, rank) as groups:
        step = toy_step(recipe if rank == 0 else replace(recipe, seed=999))
        step.recipe = recipe
        keeper = FolderKeeper(Path(folder), rank)
        resumed = rank == 0 and keeper.path.exists()
        progress = send_progress(groups, checkpoints.restore(keeper.path, step) if resumed else Progress())
        networks = {part: getattr(step, part) for part in PARTS}
        send_state(groups, networks, step.optimizers, step.scaler)
        told, counted, chosen = Told(), [], config(settings)
        broken = options.get("break_at") if options.get("break_rank") == rank else None
        if "slow_rank" in options:
            step = SlowStep(step, options["slow_rank"] == rank, counted)  # type: ignore[assignment]
        asked = iter([False] * (1 + options["ask_after"]) + [True] * 100) if "ask_after" in options else None
        facts = Facts("toy", recipe, chosen.as_mapping(), {}, {}, progress.step)
        loop = TrainLoop(
            chosen,
            step,
            Slices(recipe, broken),  # type: ignore[arg-type]
            groups,
            keeper=keeper,
            judge=Judge(options.get("scores")) if chosen.validation.every_steps else None,
            tell=told,
            facts=facts,
            asked=(lambda: next(asked)) if asked is not None else (lambda: False),
        )
        outcome = loop.run(progress)
        return {
            "told": told.calls,
            "outcome": asdict(outcome),
            "weights": {name: tensor.clone().numpy() for name, tensor in named_tensors(networks).items()},
            "notes": facts.notes,
            "examples": counted,
            "saved": keeper.saved,
        }
