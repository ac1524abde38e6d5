"""Means over the steps between two lines of the log, over all workers."""

from __future__ import annotations

import math
import time

import torch

from train_loops.exchange.groups import Groups, lost
from train_loops.rvc.recipe import Recipe
from train_loops.rvc.step import StepReport

_SUMMED = ("discriminator", "adversarial", "feature", "mel", "kl", "generator")


class StepLog:
    """Adds up what steps report. Losses are each worker's share, norms and rates the same on all."""

    def __init__(self, recipe: Recipe, groups: Groups) -> None:
        self._recipe, self._groups = recipe, groups
        self._reports: list[StepReport] = []
        self._frames = 0
        self._began = self._waited = self._exchanged = 0.0

    def start(self, waited: float, exchanged: float) -> None:
        """Begin a stretch of steps, with the loader's and the exchange's seconds so far."""
        self._reports, self._frames = [], 0
        self._began, self._waited, self._exchanged = time.perf_counter(), waited, exchanged

    def add(self, report: StepReport, frames: int) -> None:
        """A step, with the frames of its whole batch."""
        self._reports.append(report)
        self._frames += frames

    def take(self, waited: float, exchanged: float) -> tuple[dict[str, float], float]:
        """Names and values of the stretch, without those that are not finite, and its seconds; all workers call it.

        Raises WorkerLostError.
        """
        count = len(self._reports)
        seconds = max(time.perf_counter() - self._began, 1e-9)
        sums = [sum(getattr(report, name) for report in self._reports) for name in _SUMMED]
        shares = [(waited - self._waited) / seconds, (exchanged - self._exchanged) / seconds]
        with lost(self._groups, "adding up the losses"):
            found = torch.stack(self._groups.gather(torch.tensor([*sums, *shares], dtype=torch.float64)))
        values = {f"loss/{name}": float(found[:, place].sum()) / count for place, name in enumerate(_SUMMED)}
        last = self._reports[-1]
        for name in ("discriminator", "generator"):
            values[f"norm/{name}"] = sum(getattr(report, f"{name}_norm") for report in self._reports) / count
        values["learning_rate"] = last.learning_rate
        if self._recipe.precision == "fp16":
            values["scale"] = last.scale
        values["speed/steps_per_second"] = count / seconds
        values["speed/audio_per_second"] = self._frames / 100 / seconds
        values["speed/loader_wait"] = float(found[:, -2].max())
        values["speed/exchange"] = float(found[:, -1].min())
        return {name: value for name, value in values.items() if math.isfinite(value)}, seconds
