"""The states of jobs in a store: written in order, tried again while the store is away, damaged ones set aside."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from rocktop_ray.errors import ObjectMissingError, RocktopError, StorageError, StorageUnavailableError
from rocktop_ray.store.storage import Storage

FOLDER, DAMAGED = "jobs", "damaged"
MAX_BYTES = 64 << 20
"""Of one state; a larger one is damaged."""

_FIRST_PAUSE, _LONGEST_PAUSE = 0.1, 10.0
_ARRIVES = 2.0
"""Seconds within which a write that timed out arrives, where it does, once the store answers again."""
_log = logging.getLogger(__name__)
_T = TypeVar("_T")


class Ledger:
    """One object per job, ``jobs/<id>.json``. A job's states are written one after the other, newest last."""

    def __init__(self, store: Storage, threads: int = 8) -> None:
        self.store = store
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="jobs-store")
        self._wanted: dict[str, bytes | None] = {}
        self._writing: dict[str, asyncio.Task[None]] = {}
        self._unsure: set[str] = set()
        """Jobs to be removed whose first state may still be on its way."""
        self.failing: StorageError | None = None
        """Why the store refuses at the moment; None while all is well."""

    async def call(self, work: Callable[..., _T], *args: object) -> _T:
        """Something with the store, in a thread of the ledger's own: a store that hangs holds up nothing else."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, work, *args)

    async def load(self, read: Callable[[bytes], _T]) -> list[_T]:
        """Every state, as ``read`` makes of it. One that ``read`` refuses with ValueError goes to ``damaged/``.

        Raises StorageError.
        """
        keys = await self.call(lambda: [found.key for found in self.store.list(f"{FOLDER}/")])

        def one(key: str) -> _T | None:
            try:
                data = self.store.read(key, limit=MAX_BYTES)
            except ObjectMissingError:
                return None
            try:
                return read(data)
            except ValueError as error:
                _log.warning("the job file %s is damaged and set aside (%s)", key, type(error).__name__)
                self.store.write(f"{DAMAGED}/{key.partition('/')[2]}", data)
                self.store.delete(key)
                return None

        found = await asyncio.gather(*(self.call(one, key) for key in keys if key.endswith(".json")))
        return [state for state in found if state is not None]

    async def create(self, states: dict[str, bytes]) -> None:
        """Write the first states of new jobs: all of them or, if the store refuses, none. Raises StorageError."""
        if any(id in self._writing for id in states):
            raise StorageUnavailableError("the store is still busy with an earlier job of that id; try again later")
        writing = asyncio.gather(
            *(self.call(self._put, id, data) for id, data in states.items()), return_exceptions=True
        )
        try:
            failed = [answer for answer in await asyncio.shield(writing) if isinstance(answer, BaseException)]
        except asyncio.CancelledError:  # whoever asked has left; what the threads still write must go again
            writing.add_done_callback(lambda _: self._forget(states))
            raise
        if failed:
            self._forget(states)  # a write that timed out may have arrived all the same
            raise failed[0]

    def save(self, id: str, data: bytes) -> None:
        """Write a state soon. While the store is away it is tried again; only the newest is written then."""
        self._want(id, data)

    def forget(self, id: str) -> None:
        """Remove a job's state soon."""
        self._want(id, None)

    async def settled(self, id: str) -> None:
        """Wait until the newest state of a job is in the store."""
        while id in self._writing:
            await asyncio.wait([self._writing[id]])

    async def close(self, seconds: float) -> None:
        """Give what is to be written that long, then stop."""
        if self._writing:
            await asyncio.wait(list(self._writing.values()), timeout=seconds)
        for task in list(self._writing.values()):
            task.cancel()
        if self._wanted:
            _log.error("the store took no more: the last states of %d jobs are lost", len(self._wanted))
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _forget(self, ids: Iterable[str]) -> None:
        for id in ids:
            self._unsure.add(id)
            self._want(id, None)

    def _want(self, id: str, data: bytes | None) -> None:
        self._wanted[id] = data
        if id not in self._writing:
            self._writing[id] = asyncio.get_running_loop().create_task(self._write(id))

    async def _write(self, id: str) -> None:
        pause = _FIRST_PAUSE
        try:
            while id in self._wanted:
                data = self._wanted[id]
                try:
                    await self.call(self._put, id, data)
                except RocktopError as error:
                    if self.failing is None:
                        _log.warning("the store of the jobs refuses: %s; trying again", error)
                    self.failing = error if isinstance(error, StorageError) else StorageError(str(error))
                    await asyncio.sleep(pause)
                    pause = min(2 * pause, _LONGEST_PAUSE)
                    continue
                if self.failing is not None:
                    _log.warning("the store of the jobs answers again")
                    self.failing = None
                if data is None and id in self._unsure:
                    self._unsure.discard(id)
                    await asyncio.sleep(_ARRIVES)  # and then once more
                elif self._wanted[id] is data:
                    del self._wanted[id]
        finally:
            del self._writing[id]

    def _put(self, id: str, data: bytes | None) -> None:
        key = f"{FOLDER}/{id}.json"
        if data is None:
            self.store.delete(key)
        else:
            self.store.write(key, data, content_type="application/json")
