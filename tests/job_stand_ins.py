"""Conversions for tests of jobs: no model, but bytes that depend on the take and the order as the real ones do."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import signal
import sys
from collections.abc import AsyncGenerator
from pathlib import Path

import numpy as np

from rocktop_ray.audio.formats import check_output
from rocktop_ray.errors import AudioError
from serve_apps.config import LimitsConfig
from serve_apps.jobs.board import JobBoard
from serve_apps.jobs.convert_runner import KIND, ConvertRunner, payload
from serve_apps.orders import Advanced, Event, Finished, Order, Report, Started, VoiceRef
from serve_apps.spool import Spool

SIZE = 100_000


class Mill:
    """Implements ``orders.Conversions``: grinds the take's bytes in ``steps`` steps of a tenth of a second of audio.

    ``pause``: seconds before each step; ``most``: the last step that comes, until it is raised.
    """

    def __init__(self, spool: Spool, steps: int = 4, pause: float = 0.0, most: int | None = None) -> None:
        self.spool, self.steps, self.pause = spool, steps, pause
        self.most = steps if most is None else most

    async def run(self, order: Order) -> AsyncGenerator[Event, None]:
        data = await asyncio.to_thread(self._read, order.source)
        if data.startswith(b"bad"):
            raise AudioError(f"{self.spool.store.url}/{order.source}: not audio")
        yield Started(self.steps / 10)
        for step in range(1, self.steps + 1):
            await asyncio.sleep(self.pause)
            while step > self.most:
                await asyncio.sleep(0.01)
            yield Advanced(step / 10, "vocoder")
            if data == b"poison" and step == self.steps // 2:
                os.kill(os.getpid(), signal.SIGKILL)
        result = ground(data, order)
        await asyncio.to_thread(self._write, order, result)
        facts = {
            **{"key": order.settings.key, "gain_db": 0.0, "peak_dbfs": float("-inf"), "real_time_factor": 0.5},
            **{"stages": {"vocoder": 0.01}, "voice": {"family": "singer"}, "pitch": "fcpe"},
        }
        f0 = np.linspace(100, 200, 10 * self.steps, dtype=np.float32)
        yield Finished(Report(self.steps / 10, len(result), order.output.format.media_type, facts, f0, 2 * f0))

    def _read(self, key: str) -> bytes:
        with self.spool.reading(key) as path:
            return path.read_bytes()

    def _write(self, order: Order, result: bytes) -> None:
        assert order.target is not None
        with self.spool.writing(order.target, content_type=order.output.format.media_type) as path:
            path.write_bytes(result)


def ground(data: bytes, order: Order) -> bytes:
    """What a mill makes of a take."""
    seed = hashlib.sha256(data + repr(order.settings).encode() + order.output.format.name.encode()).digest()
    return (seed * (SIZE // 32 + 1))[:SIZE]


def order_for(source: str, name: str = "flac") -> Order:
    """A small order."""
    return Order("request", VoiceRef("bundle@1", "bundle"), source, check_output(name, 48_000))


async def _main(folder: Path, new: int, pause: float, first: str, most: int) -> None:
    """A process with a board: makes ``new`` jobs, tells of every change on its output, ends when all have ended."""
    spool = Spool.open(str(folder))
    mill = Mill(spool, 10, pause, most=0)  # until all jobs are there
    runner = ConvertRunner(mill, spool, lambda url: spool.reading(url))
    board = JobBoard(spool.store, {KIND: runner}, LimitsConfig(running_jobs=2))
    await board.start()
    for number in range(new):
        spool.put(f"takes/t{number}", f"take {number}".encode() if number else first.encode())
        await board.submit(
            KIND, payload(f"job{number}", order_for(f"takes/t{number}"), f"{number}.wav"), id=f"job{number}"
        )
    waiting = [job.id for job in await board.list(limit=1000)]
    mill.most = most

    async def follow(id: str) -> None:
        async for job in board.watch(id):
            sys.stdout.write(json.dumps([id, job.status, job.progress.seconds_done]) + "\n")
            sys.stdout.flush()

    await asyncio.gather(*map(follow, waiting))
    await board.close()


if __name__ == "__main__":
    asyncio.run(_main(Path(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]), sys.argv[4], int(sys.argv[5])))
