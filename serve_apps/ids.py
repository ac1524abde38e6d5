"""Names for requests and jobs that sort by time and cannot be guessed: UUIDs of version 7 (RFC 9562)."""

from __future__ import annotations

import secrets
import threading
import time
import uuid
from collections.abc import Callable

_RANDOM_BITS = 74
_STEP_BITS = 32


def uuid7() -> str:
    """A new id: 48 bits of Unix milliseconds, then 74 random bits."""
    return _text(time.time_ns() // 1_000_000 << _RANDOM_BITS | secrets.randbits(_RANDOM_BITS))


class RequestIds:
    """Makes ids that sort in the order in which they were made (section 6.2, method 2). Threads may share one.

    Ids of one maker always grow: within a millisecond, or when the clock goes back, by a random step.
    """

    def __init__(self, clock: Callable[[], int] = lambda: time.time_ns() // 1_000_000) -> None:
        """clock: milliseconds since 1970 UTC."""
        self._clock, self._guard = clock, threading.Lock()
        self._last = 0
        """48 bits of time, then 74 random bits, without version and variant."""

    def new(self) -> str:
        """The next id, as text."""
        with self._guard:
            fresh = self._clock() << _RANDOM_BITS | secrets.randbits(_RANDOM_BITS)
            if fresh >> _RANDOM_BITS <= self._last >> _RANDOM_BITS:
                fresh = self._last + 1 + secrets.randbits(_STEP_BITS)  # an overflow runs into the next millisecond
            self._last = fresh
        return _text(fresh)


def _text(bits: int) -> str:
    """48 bits of time and 74 random ones, with version and variant put in."""
    high, low = bits >> 62, bits & (1 << 62) - 1
    value = (high >> 12 & (1 << 48) - 1) << 80 | 0x7 << 76 | (high & 0xFFF) << 64 | 0b10 << 62 | low
    return str(uuid.UUID(int=value))
