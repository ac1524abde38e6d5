"""Stages of one conversion side by side: calls on the threads of an executor, or one after the other without one."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future, wait
from typing import Any, Generic, TypeVar

import torch

from rocktop_ray.progress import Clock

T = TypeVar("T")
Call = Callable[[], T]

AHEAD = 2
"""Results of ``Beside.in_order`` that are made, or being made, before they are asked for."""


class Beside:
    """Calls of one conversion. With an executor they begin at once; nothing of them runs on after the ``with`` block.

    The executor must not be the one whose thread waits here: with all threads waiting, none would be left to work.
    """

    def __init__(self, executor: Executor | None, clock: Clock) -> None:
        self.clock = clock
        self._executor = executor
        self._running: set[Future[Any]] = set()

    def __enter__(self) -> Beside:
        return self

    def __exit__(self, *_: object) -> None:
        for future in self._running:
            future.cancel()
        wait(self._running)

    def task(self, stage: str, call: Call[T]) -> Task[T]:
        """``call`` as work of ``stage``. It may run in another thread; errors come with the result."""
        if self._executor is None:
            return Task(self, stage, call)
        threads = torch.get_num_threads()

        def timed() -> tuple[T, float]:
            self.clock.check()
            # A thread has its own number, taken over from the process when it first asks: setting it before that is
            # undone by the first operation. Results may depend on it in their last bits.
            if torch.get_num_threads() != threads:
                torch.set_num_threads(threads)
            began = time.perf_counter()
            return call(), time.perf_counter() - began

        future = self._executor.submit(timed)
        self._running.add(future)
        return Task(self, stage, call, future)

    def wait(self, future: Future[T]) -> T:
        """The result of a call that runs."""
        try:
            return future.result()
        finally:
            self._running.discard(future)

    def in_order(self, stage: str, calls: Iterable[Call[T]]) -> Iterator[T]:
        """Results of many calls, in order, with few of them held: the first begin now."""
        waiting = iter(calls)
        tasks: deque[Task[T]] = deque()

        def more() -> None:
            call = next(waiting, None)
            if call is not None:
                tasks.append(self.task(stage, call))

        for _ in range(AHEAD):
            more()

        def results() -> Iterator[T]:
            while tasks:
                result = tasks.popleft().result()
                more()
                yield result

        return results()


class Task(Generic[T]):
    """A call whose result is wanted later."""

    def __init__(self, owner: Beside, stage: str, call: Call[T], future: Future[tuple[T, float]] | None = None) -> None:
        self._owner, self._stage, self._call, self._future = owner, stage, call, future

    def result(self) -> T:
        """Waits for it, or without an executor makes it now; then the stage has ended. Raises what the call raises."""
        clock = self._owner.clock
        if self._future is None:
            with clock.stage(self._stage):
                return self._call()
        value, seconds = self._owner.wait(self._future)
        clock.ended(self._stage, seconds)
        return value
