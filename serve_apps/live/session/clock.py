"""Time in a live session: when a block must be answered, and whether the client sends faster than time passes."""

from __future__ import annotations

DRIFT = 0.02
"""Share by which a client's clock may run ahead of ours for ever."""


class LiveClock:
    """Seconds of any one clock go in as ``now``.

    Args:
        rate: samples per second.
        slack: seconds that an answer may come after the next block was due.
        credit: seconds of audio that may come at once besides what time allows: what was missed while a connection
            was lost, and what a network may hold back.
    """

    def __init__(self, rate: int, slack: float, credit: float) -> None:
        self._rate, self._slack, self.credit = rate, slack, credit
        self._due = float("-inf")
        self._ahead, self._at = 0.0, float("-inf")

    def due(self, now: float, samples: int, held: int, hop: int) -> float:
        """Until when a block that came now is to be answered: before the next one comes, give or take the slack.

        Args:
            samples: length of the block.
            held: samples that must still come before the block's last hop can be computed.
            hop: samples that are computed at a time; an answer takes as long as the work of one.

        Deadlines never go back: blocks are answered in their order.
        """
        self._due = max(self._due, now + (max(samples, hop) + held) / self._rate + self._slack)
        return self._due

    def ahead(self, now: float, samples: int) -> float:
        """Count a block; the seconds by which the client is now further than it may be. 0 is well."""
        self._ahead = max(0.0, self._ahead - (now - self._at) * (1 + DRIFT)) + samples / self._rate
        self._at = now
        return max(0.0, self._ahead - self.credit)


class Budget:
    """Messages that one connection may send: ``per_second`` grow back, at most ``most`` are there at once."""

    def __init__(self, per_second: float, most: float) -> None:
        self._per_second, self._most = per_second, most
        self._left, self._at = most, float("-inf")

    def take(self, now: float) -> bool:
        """Whether there was one."""
        self._left, self._at = min(self._most, self._left + (now - self._at) * self._per_second), now
        if self._left < 1:
            return False
        self._left -= 1
        return True
