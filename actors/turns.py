"""Turns at the arithmetic of a process: calls of many conversions are computed one by one, in order of arrival.

A conversion asks for one stage call after the other, so a short take waits for at most one call of each other
conversion, not for a long take's end. One thread computes: threads of OpenMP belong to the thread that calls, so a
second one would bring a second team of them, and both would wait for cores that the other keeps busy.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from actors.threads import use_threads_here

_T = TypeVar("_T")


class Turns:
    """One computing thread, first come, first served."""

    def __init__(self, threads: int) -> None:
        """``threads``: of torch's operations, see ``threads.use_threads``."""
        self._computing = ThreadPoolExecutor(1, "compute", use_threads_here, (threads,))

    def submit(self, work: Callable[[], _T]) -> Future[_T]:
        """Queue ``work``; cancelling the future takes it out of the line if it has not begun."""
        return self._computing.submit(work)

    def take(self, work: Callable[[], _T]) -> tuple[_T, float]:
        """Wait for a turn, do ``work``: what it gave, and the seconds that it took without the waiting."""
        return self.submit(lambda: timed(work)).result()

    def close(self) -> None:
        """Take no more; what has begun ends."""
        self._computing.shutdown(wait=False, cancel_futures=True)


def timed(work: Callable[[], _T]) -> tuple[_T, float]:
    """What ``work`` gave, and the seconds that it took."""
    began = time.perf_counter()
    result = work()
    return result, time.perf_counter() - began
