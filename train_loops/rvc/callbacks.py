"""What a run tells while it goes on, and the base of those who listen. Only the first worker has listeners."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from rocktop_ray.protocols import Array
from train_loops.rvc.recipe import Recipe
from train_loops.rvc.step import AdversarialStep

Reason = Literal["steps", "epochs", "minutes", "patience", "asked"]
"""Why a run ended: a bound of ``StopConfig``, no more gain, or somebody asked."""


@dataclass(frozen=True)
class Standing:
    """Where a run is."""

    step: int
    """Steps done."""
    epoch: int
    """Epochs done."""
    batches_per_epoch: int
    seconds: float
    """Of training, over all attempts."""


@dataclass(frozen=True, eq=False)
class Sample:
    """A held-out slice, sung by the voice as it is now."""

    name: str
    """Stays the same over a run; plain, for file names."""
    rate: int
    wave: Array
    """``[samples]`` as converted."""
    target: Array
    """``[samples]`` as recorded."""
    f0: Array | None
    """``[frames]`` Hz, 100/s, as given to the voice."""


@dataclass(frozen=True, eq=False)
class ValidationResult:
    """What a validation found."""

    score: float
    """Decides which weights are the best; lower is better. See ``validation``."""
    metrics: dict[str, float]
    """By name, e.g. ``validation/mel``; finite numbers only."""
    samples: tuple[Sample, ...] = ()


@dataclass(frozen=True)
class Facts:
    """What is known when a run begins."""

    name: str
    recipe: Recipe
    settings: Mapping[str, Any]
    """``TrainingConfig.as_mapping``."""
    dataset: Mapping[str, Any]
    """``fingerprint``, ``counts`` and ``networks`` of its manifest."""
    notes: dict[str, Any] = field(default_factory=dict)
    """Kept in checkpoints: what a listener puts here (plain data), it finds again when the run is resumed."""
    resumed_from: int = 0
    """Step; 0 for a new run."""


@dataclass(frozen=True)
class Outcome:
    """How a run ended."""

    reason: Reason
    at: Standing
    best_step: int
    """0 if nothing was validated."""
    best_score: float | None
    metrics: dict[str, float] = field(default_factory=dict)
    """Of the best validation."""


class Callback:
    """Hears of a run. Called by the first worker between two steps; an error ends the run."""

    def on_train_start(self, facts: Facts, at: Standing) -> None:
        """A run begins or goes on; what was told of later steps is void and comes again."""

    def on_log(self, at: Standing, values: Mapping[str, float]) -> None:
        """Means over the steps since the last call: ``loss/...``, ``norm/...``, ``speed/...``."""

    def on_validation_end(
        self, at: Standing, result: ValidationResult, step: AdversarialStep, *, improved: bool
    ) -> None:
        """``improved``: the weights in ``step`` are the best so far."""

    def on_checkpoint(self, at: Standing) -> None:
        """A checkpoint was written."""

    def on_train_end(self, outcome: Outcome) -> None:
        """The run is over, and not only this attempt."""
