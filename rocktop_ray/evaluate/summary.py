"""A set of takes in a few numbers."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from rocktop_ray.evaluate.measures import MEASURES, Measure


@dataclass(frozen=True)
class Statistics:
    """Of one measure over the takes that have it."""

    count: int
    mean: float
    median: float
    deviation: float
    """Standard deviation over the takes."""
    worst: float | None
    """None where no direction is better."""
    worst_take: str | None


@dataclass(frozen=True)
class Summary:
    """Statistics by the name of the measure, in the order of ``measures.MEASURES``."""

    takes: int
    measures: dict[str, Statistics]

    @classmethod
    def of(cls, takes: Mapping[str, Mapping[str, float]]) -> Summary:
        """From values (``measures.values_of``) by name of the take; what is missing or not finite is left out."""
        found = {}
        for measure in MEASURES:
            values = {name: float(take[measure.name]) for name, take in takes.items() if measure.name in take}
            values = {name: value for name, value in values.items() if math.isfinite(value)}
            if values:
                found[measure.name] = _statistics(measure, values)
        return cls(len(takes), found)

    def mean(self, name: str) -> float | None:
        """The mean of one measure, None if no take has it."""
        statistics = self.measures.get(name)
        return None if statistics is None else statistics.mean

    def as_dict(self) -> dict[str, Any]:
        """Plain data."""
        return asdict(self)


def _statistics(measure: Measure, values: dict[str, float]) -> Statistics:
    numbers = np.array(list(values.values()))
    badness = {"lower": 1.0, "higher": -1.0}.get(measure.better, 0.0) * numbers
    if measure.better == "zero":
        badness = np.abs(numbers)
    at = None if measure.better == "neither" else int(np.argmax(badness))
    return Statistics(
        count=len(numbers),
        mean=float(numbers.mean()),
        median=float(np.median(numbers)),
        deviation=float(numbers.std()),
        worst=None if at is None else float(numbers[at]),
        worst_take=None if at is None else list(values)[at],
    )
