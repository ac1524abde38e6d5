"""Loading beside streams that are sung: a replica's start takes seconds of a core, which those others need in time.

On Linux each thread has a priority of its own, which those that it starts take over. So what is loaded is loaded in a
thread that stands back and then ends; threads that are to compute must not be started by it.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from importlib import import_module
from typing import TypeVar

from serve_apps.permanent import keep_loaded
from serve_apps.priority import come_forward, stand_back

_PATIENCE = 10.0
"""Seconds after which what is loaded stands back less: on a machine without any rest it would never come to an end."""
_T = TypeVar("_T")


async def quietly(work: Callable[[], _T]) -> _T:
    """What ``work`` returns, run in a thread of its own that stands back behind all others of the machine.

    Cancelling stops the waiting, not the work.
    """
    future: Future[_T] = Future()
    thread = threading.Thread(target=_run, args=(work, future), name="quiet", daemon=True)
    thread.start()
    waiting = asyncio.wrap_future(future)
    with suppress(TimeoutError):
        async with asyncio.timeout(_PATIENCE):
            return await asyncio.shield(waiting)
    if thread.native_id is not None and thread.is_alive():
        come_forward(thread.native_id)
    return await waiting


def load_for_good(module: str) -> None:
    """Import a module, and keep what is there by then."""
    import_module(module)
    keep_loaded()


def _run(work: Callable[[], _T], future: Future[_T]) -> None:
    if not future.set_running_or_notify_cancel():
        return
    stand_back(threading.get_native_id())
    try:
        result = work()
    except BaseException as error:  # noqa: BLE001 - raised where it is waited for
        future.set_exception(error)
    else:
        future.set_result(result)
