"""An undisturbed stream of the soak, in a process of its own: ``python -m benchmarks.live.steady JOB.json``.

It sends as fast as the server takes it, blocks of odd lengths among them, and feeds a ``LiveStream`` of its own with
the same: what comes back must be what that one gives. The job may ask for its connection to be cut now and then.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from math import gcd
from pathlib import Path
from typing import Any
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
from rocktop_ray.live.protocol import Flags, Notice, Start, Started
from rocktop_ray.live.stream import LiveStream
from rocktop_ray.protocols import TAKE_RATE
from rocktop_ray.settings import ConvertSettings

TOLERANCE = 5e-3
"""Of full scale: streams computed together differ in their last digits, which move the phase of tones a little."""


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
    done: bool = False
    error: str = ""


class Twin:
    """The same stream in this process, fed with the same, ahead of what is compared."""

    def __init__(self, converter: LiveConverter, started: Started, block: int) -> None:
        settings = ConvertSettings.from_mapping(started.settings)
        hop = round(converter.hop * started.rate / TAKE_RATE)
        for multiple in (gcd(block, hop), block, 1):
            self._stream = LiveStream(converter, settings, rate=started.rate, multiple=multiple)
            if self._stream.delay == started.delay:
                break
        else:
            raise RuntimeError(
                f"the server's delay is {started.delay}, that of the same stream here {self._stream.delay}"
            )
        self._waiting = np.zeros(0, np.float32)
        self._made = np.zeros(0, np.float32)

    def sent(self, samples: Array) -> None:
        """These went to the server."""
        self._waiting = np.concatenate([self._waiting, samples])

    def expect(self, count: int) -> Array:
        """The next ``count`` samples that must come back."""
        while len(self._made) < count and len(self._waiting) >= self._stream.multiple:
            take = min(len(self._waiting), self._stream.rate) // self._stream.multiple * self._stream.multiple
            self._made = np.concatenate([self._made, self._stream.feed(self._waiting[:take])])
            self._waiting = self._waiting[take:]
        found, self._made = self._made[:count], self._made[count:]
        return found


async def stream(job: dict[str, Any], account: Account) -> None:
    """All of it. Raises what ends the client."""
    rate, usual = job["rate"], job["block"]
    address = urlsplit(job["url"])
    relay = Relay(address.port or 80)
    await relay.start()
    url = f"ws://127.0.0.1:{relay.port}{address.path}" if job["cut_every"] else job["url"]
    converter = await asyncio.to_thread(served_converter, job["voice"], job["pitch"])
    client = LiveClient(
        url,
        Start(job["voice"], rate, "f32", usual, "free"),
        patience=60,
        on_event=lambda event: _note(account, event),
    )
    began = time.monotonic()
    twin = Twin(converter, await client.open(), usual)
    room = asyncio.Semaphore(round(8 * rate / usual))  # what is not compared yet must not pile up here either
    sending = asyncio.create_task(_send(client, twin, job, room))
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
            room.release()
            account.seconds, account.wall, account.cuts = position / rate, time.monotonic() - began, relay.cuts
            if account.compared < job["verify_seconds"]:
                expected = await asyncio.to_thread(twin.expect, len(audio.samples))
                _compare(account, expected, audio.samples[: len(expected)], rate)
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


async def _send(client: LiveClient, twin: Twin, job: dict[str, Any], room: asyncio.Semaphore) -> None:
    """Usual blocks, and now and then one of any length from a sample to a fifth of a second."""
    take, random = sung(30.0, job["rate"], job["clip"]), np.random.default_rng(job["clip"])
    sent, wanted = 0, round(job["seconds"] * job["rate"])
    while sent < wanted:
        length = job["block"] if random.random() < 0.9 else int(random.integers(1, job["rate"] // 5))
        at = sent % (len(take) - job["rate"])
        block = take[at : at + min(length, wanted - sent)]
        await room.acquire()
        if sent < job["verify_seconds"] * job["rate"] + job["rate"]:
            twin.sent(block)
        await client.send(block)
        sent += len(block)
    await client.end()


async def _cut(relay: Relay, every: float) -> None:
    while every:
        await asyncio.sleep(every)
        relay.cut()


def _compare(account: Account, expected: Array, heard: Array, rate: int) -> None:
    if not len(expected):
        return
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


def main(job_file: str) -> None:
    """Stream, and leave the account."""
    job, account = json.loads(Path(job_file).read_text()), Account()
    try:
        asyncio.run(stream(job, account))
    except RocktopError as error:
        account.error = f"{error.code}: {error.message}"
    except Exception as error:  # noqa: BLE001 - whatever it was belongs into the report
        account.error = repr(error)
    put(Path(job["report"]), asdict(account))


if __name__ == "__main__":
    main(sys.argv[1])
