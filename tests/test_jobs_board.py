"""A board of jobs: order, limits, cancelling, watching, listing."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

import pytest
from job_steps import Steps, Tell, board, on_disk, run, until

from rocktop_ray.errors import JobNotFoundError
from serve_apps.config import LimitsConfig
from serve_apps.jobs.protocol import Job, JobProgress


def test_a_job_goes_from_queued_to_done(tmp_path: Path) -> None:
    async def main() -> None:
        async with board(tmp_path) as jobs:
            made = await jobs.submit("convert", {"name": "a"}, group="g", owner="me")
            assert made.status in ("queued", "running")
            done = await jobs.wait(made.id, 60)
            assert (done.status, done.result, done.group, done.owner) == ("done", {"said": "a"}, "g", "me")
            assert done.created <= done.started <= done.finished
            assert done.error is None and done.queue_position is None
        assert on_disk(tmp_path) == {made.id: "done"}

    run(main())


def test_order_limit_and_positions(tmp_path: Path) -> None:
    async def main() -> None:
        steps = Steps()
        async with board(tmp_path, steps, limits=LimitsConfig(running_jobs=2)) as jobs:
            made = [await jobs.submit("convert", {"name": name}) for name in "abcde"]
            await until(lambda: sorted(steps.started) == ["a", "b"])
            assert [(await jobs.get(job.id)).queue_position for job in made] == [None, None, 0, 1, 2]
            steps.let("b")
            await until(lambda: steps.started[2:] == ["c"])
            assert (await jobs.get(made[4].id)).queue_position == 1
            steps.let(*"acde")
            for job in made:
                assert (await jobs.wait(job.id, 60)).status == "done"
            assert steps.most == 2 and sorted(steps.started) == list("abcde")

    run(main())


def test_owners_take_turns_and_batches_do_where_there_are_none(tmp_path: Path) -> None:
    async def main(by: str) -> None:
        steps = Steps()
        async with board(tmp_path / by, steps, limits=LimitsConfig(running_jobs=1)) as jobs:
            who = lambda name: {by: name}  # noqa: E731
            await jobs.submit("convert", {"name": "first"})
            await jobs.submit_all("convert", [{"name": f"big{n}"} for n in range(5)], **who("big"))
            last = await jobs.submit("convert", {"name": "small"}, **who("small"))
            assert last.queue_position == 1
            steps.let("first", "small", *(f"big{n}" for n in range(5)))
            await until(lambda: len(steps.started) == 7)
            assert steps.started == ["first", "big0", "small", "big1", "big2", "big3", "big4"]

    run(main("owner"))
    run(main("group"))


def test_cancel_and_purge(tmp_path: Path) -> None:
    async def main() -> None:
        steps = Steps()
        async with board(tmp_path, steps, limits=LimitsConfig(running_jobs=1)) as jobs:
            a, b, c, d = [await jobs.submit("convert", {"name": name}) for name in "abcd"]
            await until(lambda: steps.started == ["a"])
            assert (await jobs.cancel(b.id)).status == "cancelled"
            assert on_disk(tmp_path)[b.id] == "cancelled"
            assert (await jobs.cancel(a.id)).status == "cancelled"
            await until(lambda: steps.started == ["a", "c"])
            assert steps.cancelled == ["a"]
            assert await jobs.purge("convert", "other") == 0 == await jobs.purge("nano")
            assert await jobs.purge("convert") == 1
            assert (await jobs.get(d.id)).status == "cancelled"
            steps.let("c")
            assert (await jobs.wait(c.id, 60)).status == "done"
            assert (await jobs.cancel(c.id)).status == "done"
            with pytest.raises(JobNotFoundError):
                await jobs.cancel("nobody")

    run(main())


def test_a_job_cancelled_in_the_moment_it_starts_frees_its_place(tmp_path: Path) -> None:
    async def main() -> None:
        async with board(tmp_path, limits=LimitsConfig(running_jobs=1)) as jobs:
            for _ in range(20):
                made = await jobs.submit("convert", {"name": "x"})
                await jobs.cancel(made.id)
            last = await jobs.submit("convert", {"name": "last"})
            assert (await jobs.wait(last.id, 60)).status == "done"

    run(main())


def test_watching_is_coalesced_and_ends(tmp_path: Path) -> None:
    async def many(job: Job, tell: Tell) -> dict[str, Any]:
        for step in range(500):
            tell(JobProgress(step / 10, 50.0, "vocoder"))
            await asyncio.sleep(0.001)
        return {}

    async def main() -> None:
        async with board(tmp_path, many) as jobs:
            made = await jobs.submit("convert", {"name": "x"})
            began = time.monotonic()
            seen = [job async for job in jobs.watch(made.id)]
            spent = time.monotonic() - began
            assert seen[-1].status == "done" and all(job.status != "done" for job in seen[:-1])
            assert 2 <= len(seen) <= spent / 0.1 + 3
            done = [job.progress.seconds_done for job in seen]
            assert done == sorted(done)
            assert [job.status async for job in jobs.watch(made.id)] == ["done"]
            with pytest.raises(JobNotFoundError):
                await anext(jobs.watch("nobody"))

    run(main())


def test_a_watcher_that_leaves_is_forgotten(tmp_path: Path) -> None:
    async def main() -> None:
        steps = Steps()
        async with board(tmp_path, steps, limits=LimitsConfig(running_jobs=1)) as jobs:
            first = await jobs.submit("convert", {"name": "a"})
            second = await jobs.submit("convert", {"name": "b"})
            stream = jobs.watch(second.id)
            assert (await anext(stream)).queue_position == 0
            await stream.aclose()
            assert not jobs._records[second.id].watchers
            leaving = asyncio.create_task(anext(jobs.watch(first.id)))
            await asyncio.sleep(0)
            leaving.cancel()
            steps.let("a")
            stream = jobs.watch(second.id)
            seen = [(await anext(stream)).status, (await anext(stream)).status]
            assert seen[-1] == "running"
            steps.let("b")

    run(main())


def test_lists_are_newest_first_by_page_and_owner(tmp_path: Path) -> None:
    async def main() -> None:
        async with board(tmp_path) as jobs:
            made = [
                await jobs.submit("convert", {"name": str(n)}, owner="ab"[n % 2], group="g" if n < 3 else None)
                for n in range(7)
            ]
            ids = [job.id for job in reversed(made)]
            assert [job.id for job in await jobs.list()] == ids
            page = await jobs.list(limit=3)
            assert [job.id for job in page] == ids[:3]
            assert [job.id for job in await jobs.list(limit=3, after=page[-1].id)] == ids[3:6]
            assert {job.owner for job in await jobs.list(owner="a")} == {"a"} and len(await jobs.list(owner="a")) == 4
            assert len(await jobs.list(group="g")) == 3 and not await jobs.list(kind="nano")
            assert (await jobs.counts(group="g"))["done"] + (await jobs.counts(group="g"))["running"] == 3
            for id in ids:
                await jobs.wait(id, 60)
        async with board(tmp_path) as again:
            assert [job.id for job in await again.list()] == ids

    run(main())


def test_five_hundred_jobs_in_order_and_fast(tmp_path: Path) -> None:
    order = []

    async def note(job: Job, tell: Tell) -> dict[str, Any]:
        order.append(job.payload["n"])
        return {}

    async def main() -> None:
        async with board(tmp_path, note, limits=LimitsConfig(running_jobs=1)) as jobs:
            began = time.monotonic()
            made = [
                job
                for part in range(5)
                for job in await jobs.submit_all("convert", [{"n": 100 * part + n} for n in range(100)])
            ]
            for job in made:
                assert (await jobs.wait(job.id, 60)).status == "done"
            spent = time.monotonic() - began
            assert order == list(range(500))
            assert spent < 60, spent

    run(main())
