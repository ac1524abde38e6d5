"""Everybody else in the soak, in one process: ``python -m benchmarks.live.crowd JOB.json``.

Hostile clients, one after the other of each kind, and two that sing in real time by clocks which drift; until the job's
``stop`` file is there.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.live.figures import Array
from benchmarks.live.hostile import HOSTILE, tried, well_told
from benchmarks.live.machine import put
from benchmarks.live.takes import sung
from rocktop_ray.errors import RocktopError
from rocktop_ray.live.client import LiveClient
from rocktop_ray.live.events import Event, Lost, Resumed
from rocktop_ray.live.messages import Flags, Notice, Start


class Crowd:
    """All of them, and what they met with."""

    def __init__(self, job: dict[str, Any]) -> None:
        self._job, self._stop = job, Path(job["stop"])
        self.endings: dict[str, Counter[str]] = {name: Counter() for name in HOSTILE}
        self.badly: list[str] = []
        """Connections that did not end as they should."""
        self.drifters: list[dict[str, Any]] = []

    async def run(self) -> None:
        """Until it is told to stop."""
        work = [asyncio.create_task(self._hostile(name)) for name in self._job["hostile"]]
        work += [asyncio.create_task(self._drifter(drift, n)) for n, drift in enumerate(self._job["drifts"])]
        while not self._stop.exists():
            await asyncio.sleep(0.5)
            self.tell()
        with suppress(TimeoutError):
            async with asyncio.timeout(30):
                await asyncio.gather(*work[len(self._job["hostile"]) :], return_exceptions=True)
        for task in work:
            task.cancel()
        await asyncio.gather(*work, return_exceptions=True)
        self.tell(whole=True)

    def tell(self, *, whole: bool = False) -> None:
        """The report so far. ``whole``: with the times of all answers, which take long to write."""
        endings = {name: dict(found) for name, found in self.endings.items()}
        shortly = {} if whole else {"answers": []}
        drifters = [{**facts, **shortly, "flagged": facts["flagged"][0 if whole else -10 :]} for facts in self.drifters]
        told = {"endings": endings, "badly": self.badly[:100], "drifters": drifters}
        put(Path(self._job["report"]), told)

    async def _hostile(self, name: str) -> None:
        while not self._stop.exists():
            if Path(self._job["hush"]).exists():
                await asyncio.sleep(0.2)
                continue
            ending = await tried(name, self._job["url"], self._job["voice"])
            self.endings[name][ending] += 1
            if not well_told(name, ending):
                self.badly.append(f"{name}: {ending}")
            await asyncio.sleep(self._job["pause"])

    async def _drifter(self, drift: float, clip: int) -> None:
        """One stream in real time, as long as all this lasts. Seconds are of the machine's monotonic clock."""
        rate, block = self._job["rate"], self._job["block"]
        facts: dict[str, Any] = {
            **{"drift": drift, "blocks": 0, "answered": 0, "error": "", "ended": False, "gaps": 0},
            **{"events": [], "flagged": [], "answers": [], "began": 0.0},
        }
        self.drifters.append(facts)
        take, period = sung(30.0, rate, clip), block / rate * (1 + drift)
        start = Start(self._job["voice"], rate, "f32", block, "live")
        sent: dict[int, float] = {}
        client = await self._opened(start, facts)
        hearing = asyncio.create_task(_hear(client, facts, sent))
        try:
            begin = facts["began"] = time.monotonic()
            while not self._stop.exists():
                number = facts["blocks"]
                await asyncio.sleep(max(0.0, begin + (number + 1) * period - time.monotonic()))
                sent[number] = time.monotonic()
                await client.send(_block(take, number, block))
                facts["blocks"] += 1
            await client.end()
            await hearing
            facts["ended"] = True
        except RocktopError as error:
            facts["error"] = f"{error.code}: {error.message}"
        finally:
            with suppress(RocktopError):
                await client.close()
            await asyncio.gather(hearing, return_exceptions=True)

    async def _opened(self, start: Start, facts: dict[str, Any]) -> LiveClient:
        """Tried again while the service is still busy with its start."""
        while True:
            client = LiveClient(self._job["url"], start, patience=60, on_event=lambda event: _note(facts, event))
            try:
                await client.open()
                return client
            except RocktopError as error:
                facts["events"].append((round(time.monotonic(), 3), f"not let in: {error.message}"[:160]))
                await asyncio.sleep(3)


async def _hear(client: LiveClient, facts: dict[str, Any], sent: dict[int, float]) -> None:
    expected = 0
    while (audio := await client.receive()) is not None:
        now = time.monotonic()
        if audio.flags & Flags.LAST and audio.seq not in sent:
            continue
        facts["gaps"] += audio.seq != expected
        expected = audio.seq + 1
        facts["answered"] += 1
        if audio.seq in sent:
            facts["answers"].append(round(now - sent.pop(audio.seq), 4))
        if audio.flags & (Flags.LATE | Flags.LOST):
            facts["flagged"].append((round(now, 3), int(audio.flags), audio.seq))


def _note(facts: dict[str, Any], event: Event) -> None:
    if isinstance(event, Notice | Lost | Resumed):
        facts["events"].append((round(time.monotonic(), 3), repr(event)[:160]))


def _block(take: Array, number: int, block: int) -> Array:
    at = number * block % (len(take) - block)
    return np.ascontiguousarray(take[at : at + block])


if __name__ == "__main__":
    asyncio.run(Crowd(json.loads(Path(sys.argv[1]).read_text())).run())
