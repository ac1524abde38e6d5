"""When a turn had better wait for more streams: four together cost half of what four apart do, see ``cost``.

Nobody waits where there is time enough, as waiting is delay. The busier the computing thread, the longer the first feed
of a turn waits for those that are about to come: what streams save together keeps all of them in time where the
machine is short.
"""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass

_EASY, _FULL = 0.3, 0.6
"""Share of the time spent on turns up to which nobody waits, and from which on they wait longest."""
_LONGEST = 0.25
"""The longest wait, in hops."""
_MEMORY = 0.5
"""Seconds over which the share is averaged, exponentially."""
_NEW = 0.2
"""Weight of a new period in the average of a session."""
_GIVEN_UP = 1.5
"""Periods after which a session that has not come is waited for no longer."""
_FORGOTTEN = 2.0


@dataclass
class _Rhythm:
    """When a session came last, and how often it comes."""

    voice: int
    came: float
    period: float = math.inf


class Gathering:
    """Decides from the feeds that came, and from the turns that were taken. Times are seconds of one clock."""

    def __init__(self) -> None:
        self._rhythms: dict[str, _Rhythm] = {}
        self._busy, self._ended = 0.0, -math.inf

    def came(self, session: str, voice: int, at: float) -> None:
        """A feed with a deadline came. ``voice``: streams of the same number are computed together."""
        rhythm = self._rhythms.get(session)
        if rhythm is None:
            self._rhythms = {name: known for name, known in self._rhythms.items() if at - known.came < _FORGOTTEN}
            self._rhythms[session] = _Rhythm(voice, at)
            return
        period, rhythm.came, rhythm.voice = at - rhythm.came, at, voice
        rhythm.period = period if math.isinf(rhythm.period) else rhythm.period + _NEW * (period - rhythm.period)

    def turned(self, began: float, ended: float) -> None:
        """A turn was taken."""
        passed = max(ended - began, ended - self._ended)
        if passed > 0:
            keep = math.exp(-passed / _MEMORY)
            self._busy = self._busy * keep + (ended - began) / passed * (1 - keep)
        self._ended = ended

    def until(self, first: float, voice: int, waiting: Collection[str], hop: float, now: float) -> float:
        """When the turn of ``voice`` is to begin whose first feed came at ``first``, while sessions ``waiting`` have
        a feed in the queue, each of which makes about ``hop`` seconds of audio: at once, or a quarter of a hop after
        ``first`` at the latest.
        """
        share = min(1.0, max(0.0, (self._busy - _EASY) / (_FULL - _EASY)))
        end = first + share * _LONGEST * hop
        coming = (
            known.came + known.period <= end and now < known.came + _GIVEN_UP * known.period
            for session, known in self._rhythms.items()
            if known.voice == voice and session not in waiting
        )
        return end if end > now and any(coming) else now
