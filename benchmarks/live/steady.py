"""An undisturbed stream of the soak, in a process of its own: ``python -m benchmarks.live.steady JOB.json``.

It sends as fast as it is told to, blocks of odd lengths among them, until the job's ``stop`` file is there; its
connection may be cut now and then. What comes back is kept, and compared later with what a ``LiveStream`` in the same
process gives for the same take: ``python -m benchmarks.live.steady JOB.json compare``.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from math import gcd
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import urlsplit

import numpy as np

from benchmarks.live.figures import Array
from benchmarks.live.machine import put
from benchmarks.live.relay import Relay
from benchmarks.live.takes import sung
from benchmarks.live.voices import served_converter
from rocktop_ray.errors import RocktopError
from rocktop_ray.live.client import LiveClient
from rocktop_ray.live.converter import LiveConverter
from rocktop_ray.live.events import Event, Resumed
from rocktop_ray.live.messages import Flags, Notice, Start, Started
from rocktop_ray.live.stream import LiveStream
from rocktop_ray.protocols import TAKE_RATE
from rocktop_ray.settings import ConvertSettings

TOLERANCE = 5e-3
"""Of full scale: streams computed together differ in their last digits, which move the phase of tones a little."""
_LOOK = 0.5
_CREDIT = 1.0
"""Seconds of audio that a throttled stream may catch up at once."""


@dataclass
class Account:
    """What became of the stream."""

    seconds: float = 0.0
    wall: float = 0.0
    blocks: int = 0
    compared: float = 0.0
    """Seconds."""
    unlike: int = 0
    """Blocks further apart than the tolerance."""
    identical: int = 0
    """Blocks that are the same to the bit."""
    apart: float = 0.0
    signal: float = 0.0
    noise: float = 0.0
    """Energy of what was expected, and of the difference."""
    gaps: int = 0
    """Blocks that were not the next one."""
    flags: dict[str, int] = field(default_factory=dict)
    resumed: int = 0
    cuts: int = 0
    notices: dict[str, int] = field(default_factory=dict)
    started: dict[str, Any] = field(default_factory=dict)
    sent: int = 0
    """Samples."""
    done: bool = False
    error: str = ""


class Throttle:
    """Keeps to so many times real time as a file says."""

    def __init__(self, file: str) -> None:
        self._file, self._speed, self._room = Path(file), 1.0, 0.0
        self._at = self._looked = time.monotonic()

    async def take(self, seconds: float) -> None:
        """Wait until so much more audio may go."""
        while True:
            now = time.monotonic()
            self._room, self._at = min(_CREDIT, self._room + (now - self._at) * self._speed), now
            if now > self._looked + _LOOK:
                self._looked, self._speed = now, json.loads(self._file.read_text())
            if self._room >= min(seconds, _CREDIT):
                self._room -= seconds
                return
            await asyncio.sleep(min(0.1, (seconds - self._room) / self._speed))


async def stream(job: dict[str, Any], account: Account, kept: BinaryIO) -> None:
    """All of it. Raises what ends the client."""
    rate, usual = job["rate"], job["block"]
    address = urlsplit(job["url"])
    relay = Relay(address.port or 80)
    await relay.start()
    url = f"ws://127.0.0.1:{relay.port}{address.path}" if job["cut_every"] else job["url"]
    client = LiveClient(
        url,
        Start(job["voice"], rate, "f32", usual, "free"),
        patience=60,
        on_event=lambda event: _note(account, event),
    )
    began = time.monotonic()
    account.started = {key: value for key, value in asdict(await client.open()).items() if key != "secret"}
    sending = asyncio.create_task(_send(client, job, account))
    cutting = asyncio.create_task(_cut(relay, job["cut_every"]))
    try:
        position, told = 0, 0.0
        while (audio := await client.receive()) is not None:
            account.gaps += (audio.seq, audio.position) != (account.blocks, position)
            position, account.blocks = audio.position + len(audio.samples), account.blocks + 1
            for flag in Flags:
                if flag & audio.flags and flag is not Flags.LAST:
                    name = flag.name or str(flag)
                    account.flags[name] = account.flags.get(name, 0) + 1
            account.seconds, account.wall, account.cuts = position / rate, time.monotonic() - began, relay.cuts
            if account.seconds < job["compare_seconds"]:
                kept.write(audio.samples.astype("<f4", copy=False).tobytes())
            if account.wall > told + 1:
                told = account.wall
                put(Path(job["report"]), asdict(account))
        await sending
        account.done = True
    finally:
        for task in (sending, cutting):
            task.cancel()
            with suppress(asyncio.CancelledError, RocktopError):
                await task
        relay.close()
        await client.close()


def compare(job: dict[str, Any], account: Account) -> None:
    """Hold what came back against the same stream in this process."""
    heard = np.fromfile(job["kept"], "<f4")[: account.sent]
    twin = _twin(served_converter(job["voice"], job["pitch"]), Started(**{"secret": "", **account.started}), job)
    waiting, at = np.zeros(0, np.float32), 0
    for block in blocks_of(job):
        if at >= len(heard):
            return
        waiting = np.concatenate([waiting, block])
        if len(waiting) < job["rate"]:
            continue
        whole = len(waiting) // twin.multiple * twin.multiple
        expected, waiting = twin.feed(waiting[:whole]), waiting[whole:]
        for start in range(0, min(len(expected), len(heard) - at), job["block"]):
            part = expected[start : start + job["block"]][: len(heard) - at - start]
            _hold(account, part, heard[at + start : at + start + len(part)], job["rate"])
        at += len(expected)


def blocks_of(job: dict[str, Any]) -> Iterator[Array]:
    """Usual blocks, and now and then one of any length from a sample to a fifth of a second; the same in each run."""
    take, random, sent = sung(30.0, job["rate"], job["clip"]), np.random.default_rng(job["clip"]), 0
    while True:
        length = job["block"] if random.random() < 0.9 else int(random.integers(1, job["rate"] // 5))
        at = sent % (len(take) - job["rate"])
        yield take[at : at + length]
        sent += length


async def _send(client: LiveClient, job: dict[str, Any], account: Account) -> None:
    throttle, stop = Throttle(job["pace"]), Path(job["stop"])
    for block in blocks_of(job):
        await throttle.take(len(block) / job["rate"])
        if stop.exists():
            break
        await client.send(block)
        account.sent += len(block)
    await client.end()


async def _cut(relay: Relay, every: float) -> None:
    while every:
        await asyncio.sleep(every)
        relay.cut()


def _twin(converter: LiveConverter, started: Started, job: dict[str, Any]) -> LiveStream:
    settings = ConvertSettings.from_mapping(started.settings)
    hop = round(converter.hop * started.rate / TAKE_RATE)
    for multiple in (gcd(job["block"], hop), job["block"], 1):
        twin = LiveStream(converter, settings, rate=started.rate, multiple=multiple)
        if twin.delay == started.delay:
            return twin
    raise RuntimeError(f"the server's delay is {started.delay}, that of the same stream here {twin.delay}")


def _hold(account: Account, expected: Array, heard: Array, rate: int) -> None:
    apart = float(np.abs(expected - heard).max())
    account.compared += len(expected) / rate
    account.signal += float(np.sum(expected.astype(np.float64) ** 2))
    account.noise += float(np.sum((expected.astype(np.float64) - heard) ** 2))
    account.identical += apart == 0
    account.unlike += not apart <= TOLERANCE
    account.apart = max(account.apart, apart)


def _note(account: Account, event: Event) -> None:
    if isinstance(event, Resumed):
        account.resumed += 1
    elif isinstance(event, Notice):
        account.notices[event.code] = account.notices.get(event.code, 0) + 1


def main(job_file: str, *what: str) -> None:
    """Stream, or compare what was kept of it, and leave the account."""
    job = json.loads(Path(job_file).read_text())
    report = Path(job["report"])
    account = Account(**json.loads(report.read_text())) if what else Account()
    try:
        if what:
            compare(job, account)
        else:
            with Path(job["kept"]).open("wb") as kept:
                asyncio.run(stream(job, account, kept))
    except RocktopError as error:
        account.error = f"{error.code}: {error.message}"
    except Exception as error:  # noqa: BLE001 - whatever it was belongs into the report
        account.error = repr(error)
    put(report, asdict(account))


if __name__ == "__main__":
    main(*sys.argv[1:])
