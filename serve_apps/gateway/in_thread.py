"""Blocking work for requests that may be cancelled at any moment: in threads, and to its end."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractContextManager, asynccontextmanager
from typing import Any, TypeVar

import anyio
from starlette.concurrency import run_in_threadpool

_T = TypeVar("_T")


@asynccontextmanager
async def in_thread(manager: AbstractContextManager[_T]) -> AsyncGenerator[_T, None]:
    """A blocking context manager, entered and left in threads; left even while the task is being cancelled."""
    value: _T | None = None
    entered = False

    def enter() -> None:
        nonlocal value, entered
        value = manager.__enter__()
        entered = True

    def leave(*what: Any) -> None:
        if entered:
            manager.__exit__(*what)

    try:
        await run_in_threadpool(enter)
        yield value  # type: ignore[misc]
    except BaseException as error:
        await surely(leave, type(error), error, error.__traceback__)
        raise
    else:
        await surely(leave, None, None, None)


async def surely(function: Callable[..., None], *args: Any) -> None:
    """Call it in a thread, at once: it runs to its end also when this task is cancelled before or while it waits.

    A thread pool of anyio can be kept from starting by a plain cancellation, which is what Serve does to the task of a
    client that hangs up the moment it has its last byte.
    """
    working = asyncio.get_running_loop().run_in_executor(None, contextvars.copy_context().run, function, *args)
    with anyio.CancelScope(shield=True):
        await asyncio.shield(working)
