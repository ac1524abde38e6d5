"""Whether the process at the other end still answers, by how long its answers to pings usually take.

The patience is TCP's retransmission timeout (RFC 6298) with bounds of our own: a quiet machine is doubted after
milliseconds, a busy one later, as all of it answers later.
"""

from __future__ import annotations

LEAST, FIRST, MOST = 0.008, 0.02, 0.25
"""Seconds that a ping may take: at least, before anything is known, and at most."""
CALM = 2.0
"""Seconds after a false alarm without another one: what is computed twice for nothing stays a few percent."""


class Pulse:
    """Of one connection. ``now`` is in seconds of any one clock."""

    def __init__(self) -> None:
        self._mean: float | None = None
        self._spread = 0.0
        self._asked: float | None = None
        self._calm_until = float("-inf")
        self.alarmed = False
        """Whether it was given up for silent, and has not answered since."""

    @property
    def patience(self) -> float:
        """Seconds after which a ping should be answered."""
        return FIRST if self._mean is None else min(MOST, max(LEAST, self._mean + 4 * self._spread))

    def asked(self, now: float) -> None:
        """A ping was sent, and none was on its way."""
        self._asked = now

    def answered(self, now: float) -> None:
        """It came back."""
        if self._asked is None:
            return
        taken, self._asked = min(MOST, now - self._asked), None
        if self._mean is None:
            self._mean, self._spread = taken, taken / 2
        else:
            self._spread += (abs(taken - self._mean) - self._spread) / 4
            self._mean += (taken - self._mean) / 8
        if self.alarmed:
            self.alarmed, self._calm_until = False, now + CALM

    def left(self, now: float) -> float:
        """Seconds that the ping on its way may still take; 0 if it is overdue."""
        return self.patience if self._asked is None else max(0.0, self._asked + self.patience - now)

    def alarm(self, now: float) -> bool:
        """Whether to act, as its ping is overdue. Not again soon after it turned out that it was merely busy."""
        if self._asked is None or self.left(now) or now < self._calm_until:
            return False
        self.alarmed = True
        return True
