"""Who goes behind whom on a machine's cores. On Linux only; elsewhere all go side by side.

What is started beside live streams gets what they leave (``SCHED_IDLE``: whoever else wakes has the core at once, while
``nice`` lets it finish its slice of milliseconds, several times on a block's way). Coming back from there takes a
privilege; without it nothing is put there for good: a thread that will end is made nice instead.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path

_NICE = 15
"""Of a thread that loads; also what tells it from one that somebody else made idle."""


def stand_back(thread: int) -> None:
    """Let a thread of this process, and those that it will start, have what others leave. It shall end some day."""
    if sys.platform == "linux":
        with suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, thread, _NICE)
            if may_return():
                os.sched_setscheduler(thread, os.SCHED_IDLE, os.sched_param(0))


def come_forward(thread: int) -> None:
    """It has stood back long enough: it gets its share, a small one."""
    if sys.platform == "linux":
        with suppress(OSError):
            os.sched_setscheduler(thread, os.SCHED_OTHER, os.sched_param(0))


@contextmanager
def standing_back(wanted: bool = True) -> Iterator[None]:
    """This thread has what others leave, for a moment. Where it could not come back it stays as it is."""
    if not wanted or not may_return():
        yield
        return
    os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
    try:
        yield
    finally:
        os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))


def hold_back(process: int) -> None:
    """Let a process that starts have what others leave, until ``let_go``."""
    _all(process, os.SCHED_OTHER, os.SCHED_IDLE)


def let_go(process: int) -> None:
    """It has started. Threads of it that stand back by themselves stay there."""
    _all(process, os.SCHED_IDLE, os.SCHED_OTHER)


@cache
def may_return() -> bool:
    """Whether threads of this process may leave ``SCHED_IDLE``: as root, with CAP_SYS_NICE, or by RLIMIT_NICE."""
    if sys.platform != "linux":
        return False
    found: list[bool] = []

    def there_and_back() -> None:
        with suppress(OSError):
            for policy in (os.SCHED_IDLE, os.SCHED_OTHER):
                os.sched_setscheduler(0, policy, os.sched_param(0))
            found.append(True)

    thread = threading.Thread(target=there_and_back, name="priority")  # it ends: nobody is left behind
    thread.start()
    thread.join()
    return bool(found)


def _all(process: int, now: int, wanted: int) -> None:
    """Its threads; those that they start meanwhile are found by looking again."""
    done: set[str] = set()
    with suppress(OSError):
        while fresh := {task.name for task in Path(f"/proc/{process}/task").iterdir()} - done:
            done |= fresh
            for thread in map(int, fresh):
                with suppress(OSError):
                    if os.sched_getscheduler(thread) == now and os.getpriority(os.PRIO_PROCESS, thread) < _NICE:
                        os.sched_setscheduler(thread, wanted, os.sched_param(0))
