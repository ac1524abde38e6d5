"""Whatever happens in whatever order: no acknowledged job is lost, none is done twice at once, ends stay ends."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from rocktop_ray.errors import AudioError, QueueFullError
from rocktop_ray.store.local import LocalStorage
from serve_apps.config import LimitsConfig
from serve_apps.jobs.board import JobBoard
from serve_apps.jobs.crew import MAX_STARTS
from serve_apps.jobs.protocol import FINAL, Job

PLACES, MOST = 2, 6


class Board(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="rocktop-jobs-"))
        self.known: dict[str, str] = {}
        """Status of every job that was acknowledged, as last settled."""
        self.order: list[str] = []
        self.owner: dict[str, str] = {}
        self.active: dict[str, asyncio.Future[dict[str, Any]]] = {}
        self.killed: Counter[str] = Counter()
        self.ended: Counter[str] = Counter()

    @initialize()
    def boot(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.active = {}
        limits = LimitsConfig(running_jobs=PLACES, jobs=MOST)
        self.board = JobBoard(LocalStorage(self.folder), {"convert": self.work}, limits, sweep_seconds=3600)
        self.do(self.board.start())
        self.settle()
        for id, killed in self.killed.items():
            if killed >= MAX_STARTS and self.known[id] not in FINAL:
                assert self.status(id) == "failed"
                self.known[id] = "failed"

    async def work(self, job: Job, tell: Any) -> dict[str, Any]:
        assert job.id not in self.active, "done twice at once"
        earlier = [id for id in self.order[: self.order.index(job.id)] if self.owner[id] == self.owner[job.id]]
        assert all(self.status(id) != "queued" for id in earlier), "overtaken by a later job of the same owner"
        self.active[job.id] = asyncio.get_running_loop().create_future()
        try:
            return await self.active[job.id]
        finally:
            del self.active[job.id]

    def one(self, ids: list[str], pick: int) -> str:
        return ids[pick % len(ids)]

    def do(self, what: Any) -> Any:
        return self.loop.run_until_complete(asyncio.wait_for(what, 60))

    def status(self, id: str) -> str:
        return self.board._records[id].job.status

    def settle(self) -> None:
        async def quiet() -> None:
            for _ in range(3):
                for id in list(self.board._records):
                    await self.board._ledger.settled(id)
                for _ in range(5):
                    await asyncio.sleep(0)

        self.do(quiet())
        self.known.update({id: self.status(id) for id in self.known if id in self.board._records})

    @rule(owner=st.sampled_from("ab"), count=st.integers(1, 3))
    def submit(self, owner: str, count: int) -> None:
        waiting = sum(self.status(id) not in FINAL for id in self.known)
        try:
            jobs = self.do(self.board.submit_all("convert", [{}] * count, owner=owner))
        except QueueFullError:
            assert waiting + count > MOST
            return
        assert waiting + count <= MOST
        for job in jobs:
            self.known[job.id], self.owner[job.id] = "queued", owner
            self.order.append(job.id)
        self.settle()

    @precondition(lambda self: self.active)
    @rule(pick=st.integers(0, 9), how=st.sampled_from(["done", "failed"]))
    def end(self, pick: int, how: str) -> None:
        id = self.one([id for id in self.order if id in self.active], pick)
        if how == "done":
            self.active[id].set_result({"of": id})
        else:
            self.active[id].set_exception(AudioError("no"))
        self.ended[id] += 1
        self.settle()
        assert self.status(id) == how

    @precondition(lambda self: self.known)
    @rule(pick=st.integers(0, 9))
    def cancel(self, pick: int) -> None:
        id = self.one(self.order, pick)
        before = self.status(id)
        after = self.do(self.board.cancel(id)).status
        assert after == (before if before in FINAL else "cancelled")
        self.settle()
        assert id not in self.active

    @precondition(lambda self: any(status in FINAL for status in self.known.values()))
    @rule(pick=st.integers(0, 9))
    def remove(self, pick: int) -> None:
        id = self.one([id for id in self.order if self.known[id] in FINAL], pick)
        self.do(self.board.remove(id))
        del self.known[id]
        self.killed.pop(id, None)
        self.order.remove(id)
        self.settle()

    @rule()
    def kill(self) -> None:
        """The process vanishes; the store keeps what was written."""
        self.killed.update(id for id in self.active)
        self.abandon()
        self.boot()

    @rule()
    def stop(self) -> None:
        """A clean stop costs the jobs that run nothing."""
        self.do(self.board.close())
        self.abandon()
        self.boot()

    def abandon(self) -> None:
        self.board._ledger._threads.shutdown(wait=True, cancel_futures=True)
        self.board._crew.closing = True  # what is cleared away below must write nothing
        self.board._ledger._wanted = _Deaf()
        for task in asyncio.all_tasks(self.loop):
            task.cancel()
        self.loop.run_until_complete(asyncio.sleep(0.001))
        self.loop.close()
        self.board._hold.release()  # as the end of a process does

    @invariant()
    def nothing_is_lost(self) -> None:
        if not hasattr(self, "board"):
            return
        assert set(self.known) == set(self.board._records)
        running = {id for id in self.known if self.status(id) == "running"}
        assert running == set(self.active)
        waiting = {id for id in self.known if self.status(id) == "queued"}
        alone = any(self.board._records[id].starts == MAX_STARTS for id in running)
        heads = {next((id for id in self.order if id in waiting and self.owner[id] == owner), None) for owner in "ab"}
        cautious = alone or any(id and self.board._records[id].starts == MAX_STARTS - 1 for id in heads)
        assert len(running) <= PLACES
        if waiting:
            assert len(running) == PLACES or (cautious and running)

    @invariant()
    def ends_stay(self) -> None:
        for id, status in self.known.items():
            if status in FINAL:
                assert self.status(id) == status
        assert all(count == 1 for count in self.ended.values())

    def teardown(self) -> None:
        if hasattr(self, "board"):
            for _ in range(100):
                if not self.active:
                    break
                for work in list(self.active.values()):
                    work.set_result({})
                self.settle()
            assert all(self.status(id) in FINAL for id in self.known)
            self.abandon()
        shutil.rmtree(self.folder, ignore_errors=True)


class _Deaf(dict[str, Any]):
    def __setitem__(self, key: str, value: Any) -> None:
        return


Board.TestCase.settings = settings(max_examples=25, stateful_step_count=25, deadline=None)
TestBoard = Board.TestCase
