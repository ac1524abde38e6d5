"""A board of jobs whose work ends when the test says so."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from rocktop_ray.store.local import LocalStorage
from serve_apps.config import LimitsConfig
from serve_apps.jobs.board import JobBoard
from serve_apps.jobs.protocol import Job, JobProgress

Tell = Callable[[JobProgress], None]


class Steps:
    """A runner whose jobs end when the test says so."""

    def __init__(self) -> None:
        self.started: list[str] = []
        self.cancelled: list[str] = []
        self.gates: dict[str, asyncio.Event] = {}
        self.active = self.most = 0

    async def __call__(self, job: Job, tell: Tell) -> dict[str, Any]:
        name = job.payload["name"]
        self.started.append(name)
        self.active += 1
        self.most = max(self.most, self.active)
        try:
            tell(JobProgress(0.5, 1.0, "content"))
            await self.gates.setdefault(name, asyncio.Event()).wait()
            return {"said": name}
        except asyncio.CancelledError:
            self.cancelled.append(name)
            raise
        finally:
            self.active -= 1

    def let(self, *names: str) -> None:
        for name in names:
            self.gates.setdefault(name, asyncio.Event()).set()


async def instant(job: Job, tell: Tell) -> dict[str, Any]:
    return {"said": job.payload["name"]}


@asynccontextmanager
async def board(folder: Path, runner: Any = instant, **options: Any) -> AsyncIterator[JobBoard]:
    limits = options.pop("limits", LimitsConfig())
    made = JobBoard(LocalStorage(folder), {"convert": runner}, limits, **options)
    await made.start()
    try:
        yield made
    finally:
        await made.close()


def run(main: Coroutine[Any, Any, None], seconds: float = 120) -> None:
    asyncio.run(asyncio.wait_for(main, seconds))


async def until(true: Callable[[], bool], seconds: float = 90) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "waited in vain"
        await asyncio.sleep(0.002)


def on_disk(folder: Path) -> dict[str, str]:
    found = (json.loads(path.read_text())["job"] for path in (folder / "jobs").glob("*.json"))
    return {job["id"]: job["status"] for job in found}
