"""What requests leave behind when they are cancelled at the worst moment: nothing."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from rocktop_ray.store.local import LocalStorage
from serve_apps.gateway.in_thread import in_thread
from serve_apps.gateway.intake import discard
from serve_apps.spool import Spool


@pytest.mark.parametrize("turns", range(4))
def test_takes_go_though_the_task_is_cancelled(tmp_path: Path, turns: int) -> None:
    """Serve cancels the task of a client that hangs up when it has all; that may be while its take is deleted."""
    spool = Spool(LocalStorage(tmp_path))
    spool.put("takes/one", b"take")

    async def main() -> None:
        task = asyncio.create_task(discard(spool, ["takes/one"]))
        await _cancelled(task, turns)

    asyncio.run(main())
    _eventually_gone(tmp_path / "takes/one")


@pytest.mark.parametrize("turns", range(4))
def test_managers_are_left_though_the_task_is_cancelled(tmp_path: Path, turns: int) -> None:
    mark = tmp_path / "open"

    @contextmanager
    def manager() -> Iterator[None]:
        mark.touch()
        try:
            yield
        finally:
            mark.unlink()

    async def main() -> None:
        inside, leave = asyncio.Event(), asyncio.Event()

        async def use() -> None:
            async with in_thread(manager()):
                inside.set()
                await leave.wait()

        task = asyncio.create_task(use())
        await inside.wait()
        leave.set()
        await _cancelled(task, turns)

    asyncio.run(main())
    _eventually_gone(mark)


async def _cancelled(task: asyncio.Task[None], turns: int) -> None:
    for _ in range(turns):
        await asyncio.sleep(0)
    if turns:  # a task that has not begun does nothing at all
        task.cancel()
    with suppress(asyncio.CancelledError):
        await task


def _eventually_gone(path: Path) -> None:
    end = time.monotonic() + 60
    while path.exists():
        assert time.monotonic() < end, "left behind"
        time.sleep(0.01)
