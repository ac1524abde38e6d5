"""What the graph tells while it works. ``metrics.py`` turns it into metrics; the graph itself knows only this."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, Protocol

from rocktop_ray.errors import RocktopError

Outcome = Literal["done", "failed", "cancelled"]


class Meter(Protocol):
    """Called from any thread; quick, never raises. Stages: content, pitch, retrieval, acoustic, vocoder."""

    def order_began(self, waited: float) -> None:
        """A replica took up an order that had waited ``waited`` seconds for a free place in it."""
        ...

    def order_ended(
        self,
        outcome: Outcome,
        seconds: float,
        *,
        audio_seconds: float = 0.0,
        work_seconds: float = 0.0,
        error: RocktopError | None = None,
    ) -> None:
        """An order that began ended, ``seconds`` after its arrival. Audio and work are told of those that are done."""
        ...

    def stage(self, stage: str, seconds: float, audio_seconds: float) -> None:
        """One call of a stage, in the process that computed: its work alone, without waiting."""
        ...

    def batch(self, stage: str, seconds: float, frames: int, waited: Sequence[float]) -> None:
        """One batch of a stage: how long it took, its content frames (20 ms), how long each of its calls had waited."""
        ...

    def retried(self, stage: str) -> None:
        """A call is made again because the replica that had it was lost; ``order`` for whole orders."""
        ...


class NoMeter:
    """Tells nobody."""

    def order_began(self, waited: float) -> None:
        """See ``Meter``."""

    def order_ended(
        self,
        outcome: Outcome,
        seconds: float,
        *,
        audio_seconds: float = 0.0,
        work_seconds: float = 0.0,
        error: RocktopError | None = None,
    ) -> None:
        """See ``Meter``."""

    def stage(self, stage: str, seconds: float, audio_seconds: float) -> None:
        """See ``Meter``."""

    def batch(self, stage: str, seconds: float, frames: int, waited: Sequence[float]) -> None:
        """See ``Meter``."""

    def retried(self, stage: str) -> None:
        """See ``Meter``."""
