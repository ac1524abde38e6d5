"""The training loop: batches through the step, and every so often a log line, a validation, a checkpoint, or the end.

Every worker runs it. All that is decided by clocks, scores or wishes is decided by the first worker, at steps that all
know beforehand (``stations``), and told to the others, so that they never part.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol, cast

from rocktop_ray.config.training import TrainingConfig
from train_loops.dataset.reader import Dataset
from train_loops.exchange.groups import Groups, lost
from train_loops.exchange.reduce import Exchange
from train_loops.exchange.shares import MEASURED, WARM_UP, SpeedMeter, gather_speeds, slots
from train_loops.exchange.state import send_state
from train_loops.rvc.callbacks import Facts, Outcome, Reason, Standing, ValidationResult
from train_loops.rvc.checkpoints import Progress
from train_loops.rvc.loader import Loader, plan_for
from train_loops.rvc.log import StepLog
from train_loops.rvc.step import PARTS, AdversarialStep
from train_loops.rvc.stopping import BestScore


class Keeper(Protocol):
    """Keeps checkpoints. Every worker calls it, at the same steps; the first one's state is what counts."""

    def save(self, step: AdversarialStep, progress: Progress, metrics: dict[str, float]) -> None:
        """Write a checkpoint. Raises StorageError."""


class Judge(Protocol):
    """Validates; see ``validation.Validator``."""

    def run(self, step: AdversarialStep) -> ValidationResult:
        """Score the weights as they are now. Raises TrainingError."""


Tell = Callable[..., object]
"""``Fabric.call``: calls the hook of that name of every listener."""


@dataclass(frozen=True)
class _Decision:
    """What the first worker decided at a station."""

    save: bool
    reason: Reason | None
    metrics: dict[str, float] = field(default_factory=dict)
    notes: dict[str, Any] = field(default_factory=dict)


class TrainLoop:
    """One worker's part of a run.

    Args:
        config: of the run.
        step: networks and optimizers, the same on all workers (``send_state``).
        data: the training part of the dataset.
        groups: the workers.
        keeper: of checkpoints.
        judge: validates, on the first worker; None = no validation.
        tell: calls the listeners' hooks (``callbacks.Callback``), on the first worker; None = nobody listens.
        facts: what listeners are told at the start; its ``notes`` are kept in checkpoints.
        asked: whether the run should end at the next station; asked on the first worker.
    """

    def __init__(
        self,
        config: TrainingConfig,
        step: AdversarialStep,
        data: Dataset,
        groups: Groups,
        *,
        keeper: Keeper,
        judge: Judge | None = None,
        tell: Tell | None = None,
        facts: Facts | None = None,
        asked: Callable[[], bool] = lambda: False,
    ) -> None:
        self.config, self.step, self.groups = config, step, groups
        self.plan = plan_for(data, step.recipe)
        self.exchange = Exchange(groups)
        self._loader = Loader(data, self.plan, step.recipe, config.loader, step.device)
        self._keeper, self._judge, self._asked = keeper, judge, asked
        self._tell: Tell = tell if tell is not None and groups.rank == 0 else lambda *_, **__: None
        self._facts = facts
        self._best = BestScore(config.stop.patience, config.stop.gain)
        self._best_metrics: dict[str, float] = {}
        self._log = StepLog(step.recipe, groups)
        self._seconds = 0.0
        self._saved = time.monotonic()

    def run(self, progress: Progress) -> Outcome:
        """Train from ``progress`` on, the same on all workers, until a bound of ``config.stop`` is reached.

        A run whose bound is reached already trains no step. Raises TrainingError, WorkerLostError, StorageError; an
        error of this worker's own is told to the others.
        """
        with self.exchange.guard():
            self._recall(progress)
            here = self._standing(progress.step)
            self._tell("on_train_start", self._facts, here)
            reason = self._agreed(_Decision(False, self._reason(progress.step))).reason
            done = progress.step
            if reason is None:
                done, reason = self._train(progress.step)
            outcome = self._outcome(done, reason)
            self._tell("on_train_end", outcome)
            return outcome

    # --- steps --------------------------------------------------------------------------------------------------------

    def _train(self, first: int) -> tuple[int, Reason]:
        """Steps until the end, with the shares measured anew once; returns the steps done, and why it ended."""
        speeds, meter = (1.0,) * self.groups.size, SpeedMeter()
        self._log.start(0.0, self.exchange.seconds)
        measured = first + WARM_UP + MEASURED if self.groups.size > 1 else None
        done, reason = self._steps(first, measured, speeds, meter)
        if reason is None:
            speeds = gather_speeds(self.groups, meter.speed)
            done, reason = self._steps(done, None, speeds, None)
        assert reason is not None
        return done, reason

    def _steps(
        self, first: int, last: int | None, speeds: tuple[float, ...], meter: SpeedMeter | None
    ) -> tuple[int, Reason | None]:
        """Steps with the same shares, up to ``last``, or until a station says that the run is over."""
        rank, log = self.groups.rank, self._log
        with self._loader.walk(first, lambda count: slots(count, speeds)[rank]) as batches:
            for planned, parts in batches:
                counts, began, exchanged = self.plan.counts(planned), time.perf_counter(), self.exchange.seconds
                report = self.step.run(
                    parts, step=planned.step, epoch=planned.epoch, counts=counts, exchange=self.exchange
                )
                own = time.perf_counter() - began - (self.exchange.seconds - exchanged)
                if meter is not None:
                    meter.add(sum(len(part.lengths) for part in parts), own)
                log.add(report, counts.frames)
                done = planned.step + 1
                if self._is_station(done):
                    reason = self._station(done)
                    if reason is not None:
                        return done, reason
                    log.start(self._loader.waited, self.exchange.seconds)
                if done == last:
                    return done, None
        raise AssertionError("the plan has no end")

    # --- stations -----------------------------------------------------------------------------------------------------

    def _is_station(self, done: int) -> bool:
        """A function of the step alone, so that all workers stop over at the same ones."""
        stop = self.config.stop
        ends = (stop.steps, stop.epochs * self.plan.batches_per_epoch)
        every = (self.config.log_every_steps, self.config.validation.every_steps, self.config.checkpoints.every_steps)
        return done in ends or any(one and done % one == 0 for one in every)

    def _station(self, done: int) -> Reason | None:
        values, seconds = self._log.take(self._loader.waited, self.exchange.seconds)
        self._seconds += seconds
        started = time.perf_counter()
        here, decision = self._standing(done), None
        if self.groups.rank == 0:
            self._tell("on_log", here, values)
            ends = self._reason(done)
            due = self.config.validation.every_steps
            if due and (done % due == 0 or ends is not None):
                values |= self._validate(here)
                ends = ends or self._reason(done)
            save = ends is not None or self._due(done)
            self._seconds += time.perf_counter() - started
            decision = _Decision(save, ends, values, self._notes() if save else {})
        decided = self._agreed(decision)
        if decided.save:
            self._save(done, decided)
            self._tell("on_checkpoint", here)
        return decided.reason

    def _validate(self, here: Standing) -> dict[str, float]:
        if self._judge is None:
            return {}
        result = self._judge.run(self.step)
        improved = self._best.add(here.step, result.score)
        metrics = {"validation/score": result.score, **result.metrics}
        if improved:
            self._best_metrics = metrics
        self._tell("on_validation_end", here, result, self.step, improved=improved)
        return metrics

    def _due(self, done: int) -> bool:
        """Whether a checkpoint is due. Not asked where the clock differs between workers: the first one decides."""
        every = self.config.checkpoints
        by_time = every.every_minutes and time.monotonic() - self._saved >= 60 * every.every_minutes
        return bool(by_time) or (every.every_steps > 0 and done % every.every_steps == 0)

    def _save(self, done: int, decided: _Decision) -> None:
        if len(self.groups.layout.vendors) > 1:  # their optimizers round in other ways: here the differences end
            send_state(
                self.groups, {part: getattr(self.step, part) for part in PARTS}, self.step.optimizers, self.step.scaler
            )
        epoch, batch = divmod(done, self.plan.batches_per_epoch)
        progress = Progress(done, epoch, batch, self.plan.fingerprint(), decided.notes)
        self._keeper.save(self.step, progress, decided.metrics)
        self._saved = time.monotonic()

    def _reason(self, done: int) -> Reason | None:
        """Why the run is over after so many steps, or None."""
        stop = self.config.stop
        bounds: tuple[tuple[Reason, bool], ...] = (
            ("steps", 0 < stop.steps <= done),
            ("epochs", 0 < stop.epochs <= done // self.plan.batches_per_epoch),
            ("minutes", 0 < stop.minutes <= self._seconds / 60),
            ("patience", self._best.exhausted),
            ("asked", self.groups.rank == 0 and self._asked()),
        )
        return next((reason for reason, reached in bounds if reached), None)

    # --- what is agreed on and kept -----------------------------------------------------------------------------------

    def _agreed(self, mine: _Decision | None) -> _Decision:
        """The first worker's decision."""
        with lost(self.groups, "agreeing on what comes next"):
            return cast(_Decision, self.groups.gather_plain(mine if self.groups.rank == 0 else None)[0])

    def _standing(self, done: int) -> Standing:
        return Standing(done, done // self.plan.batches_per_epoch, self.plan.batches_per_epoch, self._seconds)

    def _notes(self) -> dict[str, Any]:
        listeners = self._facts.notes if self._facts is not None else {}
        best = {**self._best.notes(), "metrics": self._best_metrics}
        return {"seconds": self._seconds, "best": best, "listeners": listeners}

    def _recall(self, progress: Progress) -> None:
        notes = progress.notes
        if not notes:
            return
        self._seconds = float(notes["seconds"])
        self._best.recall(notes["best"])
        self._best_metrics = dict(notes["best"]["metrics"])
        if self._facts is not None:
            self._facts.notes.update(notes["listeners"])

    def _outcome(self, done: int, reason: Reason) -> Outcome:
        return Outcome(reason, self._standing(done), self._best.step, self._best.score, self._best_metrics)


def send_progress(groups: Groups, progress: Progress) -> Progress:
    """The first worker's progress, on all of them. Raises WorkerLostError."""
    with lost(groups, "telling where the run stands"):
        return cast(Progress, groups.gather_plain(progress if groups.rank == 0 else None)[0])
