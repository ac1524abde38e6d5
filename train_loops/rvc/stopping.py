"""The best weights so far, and whether going on is worth it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass
class BestScore:
    """Remembers the lowest score; exhausted after ``patience`` scores in a row that were no better."""

    patience: int
    """0 = never exhausted."""
    gain: float
    """Share of the best score by which another must be lower to be better."""
    score: float | None = None
    step: int = 0
    since: int = 0
    """Scores since the best one."""

    def add(self, step: int, score: float) -> bool:
        """A score measured at a step; True if it is the best. Scores are positive, lower is better."""
        if self.score is None or score < self.score * (1 - self.gain):
            self.score, self.step, self.since = score, step, 0
            return True
        self.since += 1
        return False

    @property
    def exhausted(self) -> bool:
        """Whether to stop."""
        return 0 < self.patience <= self.since

    def notes(self) -> dict[str, Any]:
        """What a checkpoint keeps of it."""
        return {"score": self.score, "step": self.step, "since": self.since}

    def recall(self, notes: dict[str, Any]) -> None:
        """Go on from ``notes``; patience and gain stay as they are set now."""
        self.score, self.step, self.since = notes["score"], notes["step"], notes["since"]
