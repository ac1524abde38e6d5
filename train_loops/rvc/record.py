"""What a run was begun with, beside its checkpoints: so that it goes on with the same, and is known to be over."""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from rocktop_ray.config.training import TrainingConfig
from rocktop_ray.errors import ObjectMissingError, SettingsError, TrainingError
from rocktop_ray.store.storage import Storage
from train_loops.rvc.account import public
from train_loops.rvc.callbacks import Outcome, Standing
from train_loops.rvc.recipe import Recipe

RECORD = "settings.json"
_LIMIT = 16 << 20
_FREE = ("accumulation", "precision", "initial_scale", "optimizer", "losses")
"""Keys of the recipe that may change between two starts of a run."""


@dataclass(frozen=True)
class Record:
    """The settings of a run's last start."""

    settings: dict[str, Any]
    """``TrainingConfig.as_mapping``, without secrets."""
    recipe: dict[str, Any]
    """``Recipe.as_mapping``, fitted to the dataset."""
    dataset: str
    """Fingerprint."""
    attempt: str
    """Drawn for each start: an earlier one that still works sees that it was replaced."""
    outcome: dict[str, Any] | None = None
    """How it ended; None while it has not."""

    @classmethod
    def of(cls, config: TrainingConfig, recipe: Recipe, fingerprint: str) -> Record:
        """Of a start."""
        settings = _plain(public(config.as_mapping()))
        return cls(settings, _plain(recipe.as_mapping()), fingerprint, secrets.token_hex(8))

    @classmethod
    def read(cls, run: Storage) -> Record | None:
        """None if there is no run. Raises TrainingError if the file cannot be used, StorageError."""
        try:
            values = json.loads(run.read(RECORD, limit=_LIMIT))
            return cls(**{key: values[key] for key in ("settings", "recipe", "dataset", "attempt", "outcome")})
        except ObjectMissingError:
            return None
        except (ValueError, KeyError, TypeError) as error:
            raise TrainingError(f"{RECORD} at {run.url} cannot be read: choose another name, or remove it") from error

    def write(self, run: Storage) -> None:
        """Raises StorageError."""
        run.write(RECORD, json.dumps(asdict(self), indent=1, ensure_ascii=False).encode())

    def check_continues(self, earlier: Record, place: str) -> None:
        """Raises SettingsError with everything in which this start is another run than ``earlier``, which is there."""
        changes = [
            f"recipe.{key} {_short(old)} -> {_short(new)}"
            for key, old, new in _differences(earlier.recipe, self.recipe)
            if key.partition(".")[0] not in _FREE
        ]
        for part in ("start", "validation.share"):
            changes += [f"{key} {_short(old)} -> {_short(new)}" for key, old, new in self._changes(earlier, part)]
        if self.dataset != earlier.dataset:
            changes.append("the content of the dataset")
        if changes:
            more = " and more" if len(changes) > 6 else ""
            raise SettingsError(
                f"there is another run at {place}, with another {', '.join(changes[:6])}{more}: give its settings to "
                "go on with it, or choose another name (start.kind=voice begins a new run with an old one's voice)",
                stage="training",
            )

    def is_over(self, config: TrainingConfig) -> bool:
        """Whether a start with ``config`` has nothing to train: it ended by the bounds that it has now."""
        ended = self.outcome is not None and self.outcome["reason"] != "asked"
        return ended and self.settings["stop"] == _plain(asdict(config.stop))

    def ended(self) -> Outcome:
        """How it ended. Raises TrainingError if the file does not say it in full."""
        try:
            return outcome_from(self.outcome or {})
        except (KeyError, TypeError) as error:
            raise TrainingError(f"{RECORD} does not say how the run ended") from error

    def _changes(self, earlier: Record, key: str) -> list[tuple[str, Any, Any]]:
        first, _, second = key.partition(".")
        old, new = earlier.settings.get(first, {}), self.settings[first]
        if second:
            old, new = {second: old.get(second)}, {second: new[second]}
        return [(f"{first}.{name}", *both) for name, *both in _differences(old, new)]


def check_latest(run: Storage, attempt: str) -> None:
    """Raises TrainingError if the run was started again since, or is not to be seen from here; StorageError."""
    found = Record.read(run)
    if found is None:
        raise TrainingError(
            f"this worker's machine does not see {run.url}: give an out that all machines share, e.g. s3://bucket/prefix"
        )
    if found.attempt != attempt:
        raise TrainingError(f"the run at {run.url} was started anew elsewhere, which goes on with it: this one ends")


def outcome_from(values: Mapping[str, Any]) -> Outcome:
    """An outcome that was plain data (``asdict``)."""
    return Outcome(**{**values, "at": Standing(**values["at"])})


def _plain(values: dict[str, Any]) -> dict[str, Any]:
    """As it comes back from JSON."""
    return json.loads(json.dumps(values))


def _differences(old: Any, new: Any, place: str = "") -> list[tuple[str, Any, Any]]:
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        found = []
        for key in {**old, **new}:
            found += _differences(old.get(key), new.get(key), f"{place}.{key}" if place else key)
        return found
    return [] if old == new else [(place, old, new)]


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 40 else f"{text[:37]}..."
