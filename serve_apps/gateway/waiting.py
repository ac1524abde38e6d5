"""Back-pressure at the door: how many requests may wait for their conversion to begin."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import aclosing, contextmanager

from rocktop_ray.errors import QueueFullError
from serve_apps.orders import Conversions, Finished, Order, Report, Started


class Waiting:
    """Requests of this gateway whose conversion has not begun: from their arrival on, uploads included."""

    def __init__(self, most: int) -> None:
        self._most, self.count = most, 0
        self.typical = 2.0
        """Seconds that a conversion takes, as of late."""

    @contextmanager
    def place(self) -> Iterator[Place]:
        """A place among those who wait, until it begins or the block ends. Raises QueueFullError."""
        if self.count >= self._most:
            raise QueueFullError(
                f"{self._most} requests wait here already; try again later, or queue a job with POST /v1/jobs",
                retry_after=self.typical,
            )
        place = Place(self)
        try:
            yield place
        finally:
            place.begin()

    def took(self, seconds: float) -> None:
        """A conversion ended after so long."""
        self.typical += 0.2 * (min(seconds, 60.0) - self.typical)


class Place:
    """One who waits."""

    def __init__(self, waiting: Waiting) -> None:
        self._waiting, self._waits = waiting, True
        waiting.count += 1

    def begin(self) -> None:
        """It waits no longer."""
        if self._waits:
            self._waits = False
            self._waiting.count -= 1

    async def run(self, conversions: Conversions, order: Order) -> Report:
        """Carry out the order of the one who waits. Raises what the conversion raises."""
        began = time.monotonic()
        async with aclosing(conversions.run(order)) as events:
            async for event in events:
                if isinstance(event, Started):
                    self.begin()
                    began = time.monotonic()
                elif isinstance(event, Finished):
                    self._waiting.took(time.monotonic() - began)
                    return event.report
        raise RuntimeError("a conversion ended without a report")
