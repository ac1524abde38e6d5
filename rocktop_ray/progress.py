"""What a conversion tells while it runs: how far it is, what it made, where the time went."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from threading import Event

from rocktop_ray.errors import CancelledError
from rocktop_ray.protocols import Array


@dataclass(frozen=True)
class Progress:
    """How far a conversion is: seconds of the take that are done, and the stage that just ended."""

    seconds_done: float
    stage: str


@dataclass(frozen=True)
class Converted:
    """A stretch of the converted take.

    Attributes:
        audio: ``[samples]`` at 48 kHz.
        f0_source: F0 of the take in Hz, 100/s, 0 = unvoiced; empty for voices without F0.
        f0: F0 that the voice was asked to sing.
        key: semitones between the two.
        seconds: time spent per stage since the stretch before.
    """

    audio: Array
    f0_source: Array
    f0: Array
    key: float
    seconds: dict[str, float] = field(default_factory=dict)


class Clock:
    """Counts the time of the stages, tells progress, obeys cancellation. Belongs to the conversion's own thread."""

    def __init__(self, on_progress: Callable[[Progress], None] | None = None, cancel: Event | None = None) -> None:
        self.done = 0.0
        """Seconds of the take that are converted."""
        self._on_progress, self._cancel = on_progress, cancel
        self._seconds: dict[str, float] = {}

    def check(self) -> None:
        """Raises CancelledError if the caller wants no more. May be called from any thread."""
        if self._cancel is not None and self._cancel.is_set():
            raise CancelledError("the conversion was cancelled")

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """The block is a stage. Raises CancelledError instead of beginning it."""
        self.check()
        began = time.perf_counter()
        yield
        self.ended(name, time.perf_counter() - began)

    def ended(self, name: str, seconds: float) -> None:
        """A stage took that long."""
        self._seconds[name] = self._seconds.get(name, 0.0) + seconds
        if self._on_progress is not None:
            self._on_progress(Progress(self.done, name))

    def take(self) -> dict[str, float]:
        """Seconds per stage since the last call."""
        seconds, self._seconds = self._seconds, {}
        return seconds
