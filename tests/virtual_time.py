"""An event loop whose time leaps to whatever is next when nobody has anything left to do.

What is asked of sessions in real time is then a question of who waits for whom, and not of how quick, or how busy, the
machine is: work costs no time, ``asyncio.sleep`` all of its own.
"""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Coroutine
from contextlib import ExitStack
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

_CLOCKED = ("course", "feeder", "line", "listener", "opening", "runner")
"""Modules of sessions that look at the clock."""


class _Leaping(selectors.DefaultSelector):  # type: ignore[misc, valid-type]
    now = 1000.0

    def select(self, timeout: float | None = None) -> Any:
        found = super().select(timeout and 0)
        self.now += 1e-6  # whoever looks twice sees that time has passed, and no sum of floats comes too early
        if not found and timeout:
            self.now += timeout
        return found


class _Loop(asyncio.SelectorEventLoop):
    def __init__(self, selector: _Leaping) -> None:
        super().__init__(selector)
        self.time = lambda: selector.now  # type: ignore[method-assign]


def run_in_virtual_time(work: Coroutine[Any, Any, Any], seconds: float = 200) -> Any:
    """``asyncio.run`` of what uses neither threads nor processes nor sockets, with a live session's clocks."""
    selector = _Leaping()
    clock = SimpleNamespace(monotonic=lambda: selector.now, time=lambda: 1e9 + selector.now)
    with ExitStack() as patched, asyncio.Runner(loop_factory=lambda: _Loop(selector)) as runner:
        for module in _CLOCKED:
            patched.enter_context(patch(f"serve_apps.live.session.{module}.time", clock))
        return runner.run(asyncio.wait_for(work, seconds))
