"""One client in a process of its own: ``python -m benchmarks.live.caller JOB.json``.

It is the client of the library, in real time by a clock that may drift, first dry with clicks, then singing. What it
noted of every block goes to the job's ``report`` (.npz), with the server's statistics.
"""

from __future__ import annotations

import asyncio
import gc
import json
import sys
import time
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.live.figures import Array
from benchmarks.live.takes import clicks, sung
from rocktop_ray.errors import RocktopError
from rocktop_ray.live.client import LiveClient
from rocktop_ray.live.events import Event, Lost, Resumed
from rocktop_ray.live.messages import Notice, Start, Stats


@dataclass
class Notes:
    """Of one session. Times are seconds of the machine's monotonic clock, one for every block."""

    due: Array
    """When the block's last sample was sung."""
    sent: Array
    arrived: Array
    """NaN for what never came."""
    flags: Array
    started: dict[str, Any] = field(default_factory=dict)
    stats: list[dict[str, Any]] = field(default_factory=list)
    events: list[str] = field(default_factory=list)
    heard: list[Array] = field(default_factory=list)
    samples: int = 0
    error: str = ""


def main(job_file: str) -> None:
    """Both sessions, and the report."""
    job = json.loads(Path(job_file).read_text())
    dry = clicks(job["click_seconds"], job["rate"]).wave
    take = sung(job["sung_seconds"], job["rate"], job["clip"])
    gc.freeze()
    noted = {"dry": asyncio.run(session(job, dry, job["begin_at"], bypass=True))} if len(dry) else {}
    if len(take):
        noted["wet"] = asyncio.run(session(job, take, job["sing_at"], bypass=False))
    arrays = {}
    for name, notes in noted.items():
        heard = np.concatenate([*notes.heard, np.zeros(0, np.float32)])
        arrays |= {f"{name}_{part}": getattr(notes, part) for part in ("due", "sent", "arrived", "flags")}
        arrays[f"{name}_heard"] = heard
        facts = {"started": notes.started, "stats": notes.stats, "events": notes.events, "samples": notes.samples}
        arrays[f"{name}_facts"] = np.array(json.dumps({**facts, "error": notes.error}))
    np.savez(job["report"], **arrays)


async def session(job: dict[str, Any], take: Array, begin_at: float, *, bypass: bool) -> Notes:
    """One stream in real time. ``job`` has url, voice, rate, block, settings, drift, keep_seconds."""
    block, period = job["block"], job["block"] / job["rate"] * (1 + job["drift"])
    count = len(take) // block
    notes = Notes(*(np.full(count, np.nan) for _ in range(4)))
    start = Start(job["voice"], job["rate"], "f32", block, "live", job["settings"], bypass)
    hearing: asyncio.Task[None] | None = None
    client = LiveClient(job["url"], start, on_event=lambda event: _note(notes, event))
    try:
        started = await client.open()
        notes.started = {name: value for name, value in asdict(started).items() if name != "secret"}
        # Not before it was asked for: streams begin at different places of a block, as people do.
        begin = max(begin_at, time.monotonic() + 0.1)
        hearing = asyncio.create_task(_hear(client, notes, job))
        for number in range(count):
            notes.due[number] = begin + (number + 1) * period
            await asyncio.sleep(max(0.0, notes.due[number] - time.monotonic()))
            notes.sent[number] = time.monotonic()
            await client.send(take[number * block : (number + 1) * block])
        await client.end()
        await hearing
    except RocktopError as error:
        notes.error = f"{error.code}: {error.message}"
    finally:
        with suppress(RocktopError):
            await client.close()
        if hearing is not None:
            await asyncio.gather(hearing, return_exceptions=True)
    return notes


async def _hear(client: LiveClient, notes: Notes, job: dict[str, Any]) -> None:
    keep = round(job["keep_seconds"] * job["rate"])
    while (audio := await client.receive()) is not None:
        now = time.monotonic()
        if audio.seq < len(notes.arrived):
            notes.arrived[audio.seq], notes.flags[audio.seq] = now, int(audio.flags)
        if notes.samples < keep:
            notes.heard.append(audio.samples)
        notes.samples += len(audio.samples)


def _note(notes: Notes, event: Event) -> None:
    if isinstance(event, Stats):
        notes.stats.append({**asdict(event), "at": time.monotonic()})
    elif isinstance(event, Notice | Lost | Resumed):
        notes.events.append(repr(event))


if __name__ == "__main__":
    main(sys.argv[1])
