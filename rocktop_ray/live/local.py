"""A live stream without a server: the same calls as ``LiveClient``, the work in a thread of this process."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from typing import Any

import numpy as np
import torch

from rocktop_ray.errors import SettingsError
from rocktop_ray.live.events import Event
from rocktop_ray.live.messages import Applied, Audio, Ended, Flags, Spread, Started, Stats
from rocktop_ray.live.stream import LiveStream
from rocktop_ray.live.threads import compute_here
from rocktop_ray.protocols import Array
from rocktop_ray.settings import ConvertSettings

_SKIP = 0.2
"""Seconds that a block may wait, live; after that its networks are left out, so that nothing piles up."""
_AHEAD = 2
"""Blocks that wait before ``send`` does, where nothing is live."""


class LocalClient:
    """One stream. What can be missed here is time only: a block that waited too long comes back as it was, flag LATE.

    Args:
        stream: a new one. Blocks are multiples of its ``multiple``, but for the last.
        voice: its name, for messages.
        live: blocks come as time passes.
        on_event: called with what happens besides audio, in the event loop.
    """

    def __init__(
        self,
        stream: LiveStream,
        voice: str,
        *,
        live: bool = False,
        on_event: Callable[[Event], None] | None = None,
    ) -> None:
        self._stream, self._voice, self._live = stream, voice, live
        self._on_event = on_event or (lambda event: None)
        self._waiting: deque[tuple[float, Array, ConvertSettings, bool]] = deque()
        self._outputs: deque[Audio] = deque()
        self._came, self._taken, self._made = (asyncio.Event() for _ in range(3))
        self._settings, self._bypass = stream.settings, stream.bypass
        self._runner: asyncio.Task[None] | None = None
        self._ending = self._uneven = False
        self._beyond: Array = np.zeros(0, np.float32)
        """What came out for the silence that filled up the last block."""
        self._seq = self._position = self._sent = self._late = self._bypassed = 0
        self._spent: list[float] = []
        self._waited: list[float] = []
        self._behind: list[float] = []

    def delay_at(self, seq: int) -> int:
        """Samples by which block ``seq`` of the output is late."""
        return self._stream.delay

    async def open(self) -> Started:
        """Begin."""
        stream = self._stream
        started = Started(
            session="local",
            secret="local",  # noqa: S106 - there is nobody to keep it from
            voice=self._voice,
            rate=stream.rate,
            delay=stream.delay,
            delay_ms=1e3 * stream.delay / stream.rate,
            window=0.0,
            next=0,
            settings=asdict(self._settings),
            exact=stream.converter.exact,
        )
        self._runner = asyncio.create_task(self._run())
        self._runner.add_done_callback(lambda _: self._taken.set())
        self._runner.add_done_callback(lambda _: self._made.set())
        self._on_event(started)
        return started

    async def send(self, samples: Array) -> None:
        """The next block. Waits while there is enough to do, but live. Raises what ended the stream, and SettingsError
        for a block behind one that was not a multiple of the stream's.
        """
        self._check_open()
        if self._uneven:
            raise SettingsError(f"blocks here are multiples of {self._stream.multiple} samples, but for the last")
        self._uneven = bool(len(samples) % self._stream.multiple)
        self._waiting.append((time.monotonic(), samples, self._settings, self._bypass))
        self._sent += 1
        self._came.set()
        while not self._live and len(self._waiting) > _AHEAD:
            self._taken.clear()
            await self._taken.wait()
            self._check()

    async def receive(self) -> Audio | None:
        """The next block of output; None after the last. Raises what ended the stream."""
        while not self._outputs:
            if self._runner is None or self._runner.done():
                self._check()
                return None
            self._made.clear()
            await self._made.wait()
        return self._outputs.popleft()

    async def change(self, settings: dict[str, Any]) -> None:
        """Other settings from the next block on; those left out stay. Raises SettingsError."""
        chosen = ConvertSettings.from_mapping({**asdict(self._settings), **settings})
        self._stream.converter.check(chosen)
        self._settings = chosen
        self._applied()

    async def bypass(self, on: bool) -> None:
        """The take itself, equally late, from the next block on, or the converted again."""
        self._bypass = on
        self._applied()

    async def end(self) -> None:
        """No more blocks come."""
        self._ending = True
        self._came.set()

    async def close(self) -> None:
        """Leave at once."""
        if self._runner is not None:
            self._runner.cancel()
            await asyncio.wait([self._runner])

    def _applied(self) -> None:
        self._on_event(Applied(asdict(self._settings), self._voice, self._bypass, self._sent, self._stream.delay))

    def _check(self) -> None:
        if self._runner is not None and self._runner.done() and not self._runner.cancelled():
            error = self._runner.exception()
            if error is not None:
                raise error

    def _check_open(self) -> None:
        self._check()
        if self._ending or self._runner is None or self._runner.done():
            raise SettingsError("the stream is not open: it was not begun, or it was ended")

    async def _run(self) -> None:
        loop, told = asyncio.get_running_loop(), time.monotonic()
        with ThreadPoolExecutor(1, "live", compute_here, (torch.get_num_threads(),)) as worker:
            while True:
                while not self._waiting:
                    if self._ending:
                        await self._flush(worker)
                        return
                    self._came.clear()
                    await self._came.wait()
                came, samples, settings, bypass = self._waiting.popleft()
                self._taken.set()
                began = time.monotonic()
                skip = self._live and began - came > _SKIP
                wave = await loop.run_in_executor(worker, self._feed, samples, settings, bypass, skip)
                done = time.monotonic()
                self._spent.append(done - began)
                self._waited.append(began - came)
                self._behind.append(done - came - len(samples) / self._stream.rate)
                self._late += skip
                self._bypassed += bypass
                flags = (Flags.BYPASS if bypass else Flags.NONE) | (Flags.LATE if skip else Flags.NONE)
                self._give(wave, flags)
                if done - told >= 1:
                    self._on_event(self._stats(done - told))
                    told = done

    def _feed(self, samples: Array, settings: ConvertSettings, bypass: bool, skip: bool) -> Array:
        if settings is not self._stream.settings:
            self._stream.change(settings)
        self._stream.bypass = bypass
        filled = np.pad(samples, (0, -len(samples) % self._stream.multiple))
        wave = self._stream.skip(filled) if skip else self._stream.feed(filled)
        self._beyond = wave[len(samples) :]
        return wave[: len(samples)]

    async def _flush(self, worker: ThreadPoolExecutor) -> None:
        samples = self._position
        flushed = await asyncio.get_running_loop().run_in_executor(worker, self._stream.flush)
        rest = np.concatenate([self._beyond, flushed])[: self._stream.delay]
        for start in range(0, len(rest), self._stream.rate):
            self._give(rest[start : start + self._stream.rate], Flags.LAST)
        self._on_event(Ended(samples, self._late, 0))

    def _give(self, wave: Array, flags: Flags) -> None:
        self._outputs.append(Audio(self._seq, self._position, wave, flags))
        self._position += len(wave)
        self._seq += 1
        self._made.set()

    def _stats(self, seconds: float) -> Stats:
        spent, waited, behind = (1e3 * np.array(values) for values in (self._spent, self._waited, self._behind))
        load = float(spent.sum()) / 1e3 / seconds
        for values in (self._spent, self._waited, self._behind):
            values.clear()
        p50, p95 = (float(value) for value in np.percentile(spent, [50, 95]))
        return Stats(
            seconds=self._position / self._stream.rate,
            seq=self._seq - 1,
            kept=self._seq - 1,
            compute_ms=Spread(p50, p95, float(spent.max())),
            queue_ms=float(waited.mean()),
            lateness_ms=float(behind.max()),
            late=self._late,
            lost=0,
            bypassed=self._bypassed,
            load=load,
            sessions=1,
        )
