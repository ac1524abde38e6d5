"""Time in a live session: when a block must be answered, and whether the client sends faster than time passes."""

from __future__ import annotations

DRIFT = 0.02
"""Share by which a client's clock may run ahead of ours for ever."""


class LiveClock:
    """Seconds of any one clock go in as ``now``.

    Args:
        rate: samples per second.
        slack: seconds that an answer may come after the next block was due.
        credit: seconds of audio that may come at once besides what time allows: what a network may hold back.
        level: seconds by which the client is ahead of time; below 0 for what it missed while a connection was lost, and
            may send at once.
        now: when that was so.
    """

    def __init__(
        self, rate: int, slack: float, credit: float, *, level: float = 0.0, now: float = float("-inf")
    ) -> None:
        self._rate, self._slack, self.credit = rate, slack, credit
        self._due = float("-inf")
        self.level, self._at = level, now
        self._least = min(0.0, level)
        """Time that passes in silence is not saved up."""

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
        self.level = max(self._least, self.level - (now - self._at) * (1 + DRIFT)) + samples / self._rate
        self._at = now
        return max(0.0, self.level - self.credit)


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
