"""Streams of one process computed together: what arrives while one batch is computed makes the next one.

One thread computes. A turn takes one slice, about a hop, of each stream that waits for the same voice; feeds with a
deadline go before those without, however long those are.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, InvalidStateError
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np

from rocktop_ray.errors import StageLostError, StateMissingError
from rocktop_ray.live.stream import LiveStream, feed_many
from rocktop_ray.live.threads import compute_here
from rocktop_ray.protocols import TAKE_RATE, Array
from serve_apps.live.compute.gather import Gathering
from serve_apps.live.engine import Piece

_T = TypeVar("_T")


@dataclass(eq=False)
class Run:
    """A feed while it is computed."""

    stream: LiveStream
    pieces: Sequence[Piece]
    slice: int
    """Samples of a turn at most."""
    live: bool
    session: str
    after: Run | None = None
    """The feed before it of the same stream, where that may be under way still."""
    waves: list[Array] = field(default_factory=list)
    """Of the pieces that are done."""
    delays: list[int] = field(default_factory=list)
    """Samples by which the pieces that were begun are late."""
    seconds: float = 0.0
    """Spent on the turns that it took part in."""
    waited: float = 0.0
    together: int = 1
    left: LiveStream | None = None
    """Once all is done: the stream as it was then. ``stream`` may have gone on."""
    future: Future[None] = field(default_factory=Future)
    """Done when all is. It does not hold the feed: those two would be garbage that only a collector finds."""
    arrived: float = field(default_factory=time.perf_counter)
    turns: int = 0
    _done: int = 0
    """Samples of the current piece that are done."""
    _parts: list[Array] = field(default_factory=list)

    def due(self) -> tuple[Array, bool]:
        """The next slice, and whether it is to be skipped. Raises SettingsError; the stream then stays as it was."""
        piece = self.pieces[len(self.waves)]
        if piece.settings != self.stream.settings:
            self.stream.change(piece.settings)
        self.stream.bypass = piece.bypass
        if len(self.delays) == len(self.waves):
            self.delays.append(self.stream.delay)
        return piece.samples[self._done : self._done + self.slice], piece.skip

    def took(self, wave: Array, began: float, seconds: float, together: int) -> bool:
        """Take over what a slice became; whether all is done."""
        if not self.turns:
            self.waited = began - self.arrived
        self.turns += 1
        self.seconds += seconds
        self.together = max(self.together, together)
        self._parts.append(wave)
        self._done += len(wave)
        if self._done >= len(self.pieces[len(self.waves)].samples):
            self.waves.append(self._parts[0] if len(self._parts) == 1 else np.concatenate(self._parts))
            self._parts, self._done = [], 0
        if len(self.waves) < len(self.pieces):
            return False
        self.left = self.stream.fork()
        return True

    def ready(self) -> bool:
        """Whether its stream has come to it. Raises StateMissingError if it never will: the feed before it failed."""
        if self.after is None:
            return True
        if not self.after.future.done():
            return False
        if self.after.left is None:
            raise StateMissingError("the feed before this one failed: send the state along")
        self.after = None
        return True


class Batcher:
    """The computing thread."""

    def __init__(
        self, threads: int, most: int, told: Callable[[float, Sequence[float], int], None] = lambda *_: None
    ) -> None:
        """threads: of torch's operations. most: streams in a batch. told: called after each turn with its seconds, the
        seconds that feeds had waited which it began, and how many streams it took.
        """
        self._threads, self._most, self._told = threads, most, told
        self._changed = threading.Condition()
        self._live: deque[Run] = deque()
        self._free: deque[Run] = deque()
        self._calls: deque[tuple[Callable[[], Any], Future[Any]]] = deque()
        self._closed = False
        self._gathering = Gathering()
        self._thread = threading.Thread(target=self._work, name="live", daemon=True)
        self._thread.start()

    def submit(self, run: Run) -> Future[None]:
        """Queue a feed. Cancelling the future stops it at the next turn; its stream is then somewhere in between."""
        with self._changed:
            if self._closed:
                raise StageLostError("this process is about to stop: send the blocks to another one")
            if run.live:
                self._gathering.came(run.session, id(run.stream.converter), run.arrived)
            (self._live if run.live else self._free).append(run)
            self._changed.notify()
        return run.future

    def call(self, work: Callable[[], _T]) -> Future[_T]:
        """Let the thread do something short when no feed with a deadline waits."""
        future: Future[_T] = Future()
        with self._changed:
            self._calls.append((work, future))
            self._changed.notify()
        return future

    @property
    def waiting(self) -> int:
        """Feeds that wait for their next turn."""
        return len(self._live) + len(self._free)

    def check(self) -> None:
        """Raise RuntimeError if the thread has died."""
        if not self._closed and not self._thread.is_alive():
            raise RuntimeError("the computing thread of live sessions has died")

    def close(self) -> None:
        """Take no more; what waits is cancelled."""
        with self._changed:
            self._closed = True
            for run in (*self._live, *self._free):
                run.future.cancel()
            for _, future in self._calls:
                future.cancel()
            self._changed.notify()
        self._thread.join(timeout=5.0)

    def _work(self) -> None:
        compute_here(self._threads)
        while True:
            with self._changed:
                while not (self._live or self._free or self._calls or self._closed):
                    self._changed.wait()
                if self._closed:
                    return
                if self._gathers():
                    continue
                if self._calls and not self._live:
                    call: tuple[Callable[[], Any], Future[Any]] | None = self._calls.popleft()
                    batch: list[Run] = []
                else:
                    call, batch = None, self._pick()
            if call is not None:
                _settle(call[1], *_tried(call[0]))
            elif batch:
                self._turn(batch)
            del call, batch  # an idle thread must hold no voice

    def _gathers(self) -> bool:
        """Wait, if that pays, for feeds that the next turn could take along. Whether it did. The lock is held."""
        if not self._live:
            return False
        first, now = self._live[0], time.perf_counter()
        waiting, voice = {run.session for run in self._live}, first.stream.converter
        until = self._gathering.until(first.arrived, id(voice), waiting, voice.hop / TAKE_RATE, now)
        if until <= now:
            return False
        self._changed.wait(until - now)
        return True

    def _pick(self) -> list[Run]:
        """The longest waiting feed and others of its voice, out of the queue. The lock is held."""
        queue = self._live or self._free
        first = queue[0].stream.converter
        batch: list[Run] = []
        rest: list[Run] = []
        for run in queue:
            if run.future.cancelled():
                continue
            try:
                fits = run.ready() and run.stream.converter is first and len(batch) < self._most
            except StateMissingError as error:
                _settle(run.future, None, error)
                continue
            (batch if fits else rest).append(run)
        queue.clear()
        queue.extend(rest)
        return batch

    def _turn(self, batch: list[Run]) -> None:
        began = time.perf_counter()
        waves = _advanced(batch)
        ended = time.perf_counter()
        seconds = ended - began
        self._gathering.turned(began, ended)
        fresh = [began - run.arrived for run in batch if not run.turns]
        again: list[Run] = []
        for run, wave in zip(batch, waves, strict=True):
            if isinstance(wave, BaseException):
                _settle(run.future, None, wave)
            elif run.took(wave, began, seconds, len(batch)):
                _settle(run.future, None, None)
            else:
                again.append(run)
        with self._changed:
            for run in again:
                (self._live if run.live else self._free).append(run)
        self._told(seconds, fresh, len(batch))


def _advanced(batch: Sequence[Run]) -> list[Array | Exception]:
    """One slice of each: what it became, or why it cannot. One that fails fails alone."""
    try:
        blocks, skips = zip(*(run.due() for run in batch), strict=True)
        return list(feed_many([run.stream for run in batch], blocks, skips))
    except Exception as error:  # noqa: BLE001 - whatever one stream raises must not end the thread, nor the others
        if len(batch) == 1:
            return [error]
    return [_advanced([run])[0] for run in batch]


def _tried(work: Callable[[], _T]) -> tuple[_T | None, Exception | None]:
    try:
        return work(), None
    except Exception as error:  # noqa: BLE001 - told to whoever waits for it
        return None, error


def _settle(future: Future[Any], result: Any, error: BaseException | None) -> None:
    with contextlib.suppress(InvalidStateError):  # cancelled meanwhile
        if error is None:
            future.set_result(result)
        else:
            future.set_exception(error)
