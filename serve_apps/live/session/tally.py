"""What is measured in a session: for the client's statistics of every second, and for metrics."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from rocktop_ray.live.messages import Flags, Spread
from serve_apps.live.engine import Fed
from serve_apps.live.session.answers import Answer
from serve_apps.observe.metrics import Metrics


class Tally:
    """Collects between two statistics; told to ``metrics`` as it comes."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._compute: list[float] = []
        self._waited: list[float] = []
        self._late: list[float] = []
        self.answered = -1
        """Number of the last block that was answered."""

    def fed(self, fed: Fed) -> None:
        """The engine computed."""
        self._compute.append(fed.seconds)
        self._waited.append(fed.waited)
        self._metrics.live_computed(fed.seconds, fed.waited)

    def lost(self) -> None:
        """A call is made again."""
        self._metrics.retried("live")

    def answered_at(self, now: float, answers: Sequence[Answer], rate: int) -> None:
        """Blocks were answered."""
        for answer in answers:
            block, flags = answer.block, answer.audio.flags
            self.answered = block.seq
            if block.known:
                continue
            kind = (
                "lost" if flags & Flags.LOST else
                "late" if flags & Flags.LATE else
                "bypassed" if flags & Flags.BYPASS else
                "converted"
            )  # fmt: skip
            self._metrics.live_answered(kind, len(block.samples) / rate, now - block.arrived if block.hurry else None)
            if block.hurry:
                self._late.append(now - block.due)

    def take(self) -> tuple[Spread, float, float]:
        """Since the last call: seconds of computing, the mean wait for it in ms, and the worst lateness in ms: how
        long after its deadline a block was answered, negative where all were in time.
        """
        compute = np.array(self._compute or [0.0]) * 1e3
        spread = Spread(*(round(float(value), 3) for value in (*np.percentile(compute, [50, 95]), compute.max())))
        waited = float(np.mean(self._waited or [0.0])) * 1e3
        late = max(self._late, default=0.0) * 1e3
        self._compute, self._waited, self._late = [], [], []
        return spread, round(waited, 3), round(late, 3)
