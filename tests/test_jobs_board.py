from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from rocktop_ray.errors import (
    AudioError,
    JobNotFoundError,
    QueueFullError,
    SettingsError,
    StorageUnavailableError,
    UrlUnreachableError,
)
from rocktop_ray.store.local import LocalStorage
from serve_apps.config import LimitsConfig
from serve_apps.jobs.board import JobBoard
from serve_apps.jobs.protocol import Job, JobProgress

Tell = Callable[[JobProgress], None]


class Steps:
    """A runner whose jobs end when the test says so."""

    def __init__(self) -> None:
        self.started: list[str] = []
        self.cancelled: list[str] = []
        self.gates: dict[str, asyncio.Event] = {}
        self.active = self.most = 0

    async def __call__(self, job: Job, tell: Tell) -> dict[str, Any]:
        name = job.payload["name"]
        self.started.append(name)
        self.active += 1
        self.most = max(self.most, self.active)
        try:
            tell(JobProgress(0.5, 1.0, "content"))
            await self.gates.setdefault(name, asyncio.Event()).wait()
            return {"said": name}
        except asyncio.CancelledError:
            self.cancelled.append(name)
            raise
        finally:
            self.active -= 1

    def let(self, *names: str) -> None:
        for name in names:
            self.gates.setdefault(name, asyncio.Event()).set()


async def instant(job: Job, tell: Tell) -> dict[str, Any]:
    return {"said": job.payload["name"]}


@asynccontextmanager
async def board(folder: Path, runner: Any = instant, **options: Any) -> AsyncIterator[JobBoard]:
    limits = options.pop("limits", LimitsConfig())
    made = JobBoard(LocalStorage(folder), {"convert": runner}, limits, **options)
    await made.start()
    try:
        yield made
    finally:
        await made.close()


def run(main: Coroutine[Any, Any, None], seconds: float = 120) -> None:
    asyncio.run(asyncio.wait_for(main, seconds))


async def until(true: Callable[[], bool], seconds: float = 90) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "waited in vain"
        await asyncio.sleep(0.002)


def on_disk(folder: Path) -> dict[str, str]:
    found = (json.loads(path.read_text())["job"] for path in (folder / "jobs").glob("*.json"))
    return {job["id"]: job["status"] for job in found}


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


def test_a_full_queue_refuses_whole_batches(tmp_path: Path) -> None:
    async def main() -> None:
        steps = Steps()
        async with board(tmp_path, steps, limits=LimitsConfig(running_jobs=1, jobs=3)) as jobs:
            await jobs.submit_all("convert", [{"name": "a"}, {"name": "b"}])
            with pytest.raises(QueueFullError) as refused:
                await jobs.submit_all("convert", [{"name": "c"}, {"name": "d"}])
            assert refused.value.retryable and refused.value.http_status == 429 and refused.value.retry_after >= 1
            await jobs.submit("convert", {"name": "c"})
            with pytest.raises(QueueFullError):
                await jobs.submit("convert", {"name": "d"})
            steps.let("a")
            await until(lambda: "b" in steps.started)
            await jobs.submit("convert", {"name": "d"})
            assert len(await jobs.list()) == 4 == len(on_disk(tmp_path))

    run(main())


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


def test_failures_are_plain_data(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def fails(job: Job, tell: Tell) -> dict[str, Any]:
        match job.payload["name"]:
            case "audio":
                raise AudioError("no sound")
            case "url":
                raise UrlUnreachableError("https://x is away")
            case "bug":
                raise KeyError(job.payload["url"])
            case "nan":
                return {"value": float("nan")}
        return {"value": object()}

    async def main() -> None:
        async with board(tmp_path, fails) as jobs:
            errors = {}
            for name in ("audio", "url", "bug", "nan", "object"):
                made = await jobs.submit("convert", {"name": name, "url": "https://x/?signature=secret"})
                done = await jobs.wait(made.id, 60)
                assert done.status == "failed" and done.result is None
                errors[name] = done.error
            assert errors["audio"] == {
                **{"code": "invalid_audio", "stage": "audio", "message": "no sound"},
                **{"retryable": False, "status": 422},
            }
            assert errors["url"]["retryable"] and errors["url"]["status"] == 502
            for name in ("bug", "nan", "object"):
                assert errors[name]["code"] == "internal_error" and errors[name]["status"] == 500
            assert "secret" not in json.dumps(errors) + caplog.text
            assert "KeyError" in caplog.text

    run(main())


def test_what_is_refused_for_the_time_being_is_tried_again(tmp_path: Path) -> None:
    tries = []

    async def shaky(job: Job, tell: Tell) -> dict[str, Any]:
        tries.append(job.id)
        if job.payload["name"] == "never" or len(tries) < 3:
            raise StorageUnavailableError("the store is away")
        return {}

    async def main() -> None:
        async with board(tmp_path, shaky, patience=60) as jobs:
            made = await jobs.submit("convert", {"name": "soon"})
            assert (await jobs.wait(made.id, 60)).status == "done" and len(tries) == 3
        async with board(tmp_path, shaky, patience=0) as jobs:
            made = await jobs.submit("convert", {"name": "never"})
            assert (await jobs.wait(made.id, 60)).error["code"] == "storage_unavailable"

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


def test_the_same_call_twice_makes_one_job(tmp_path: Path) -> None:
    async def main() -> None:
        steps = Steps()
        async with board(tmp_path, steps) as jobs:
            calls = [jobs.submit("convert", {"name": "a"}, id="same") for _ in range(5)]
            assert {job.id for job in await asyncio.gather(*calls)} == {"same"}
            await until(lambda: bool(steps.started))
            steps.let("a")
            assert (await jobs.wait("same", 60)).status == "done"
            assert (await jobs.submit("convert", {"name": "a"}, id="same")).status == "done"
            assert steps.started == ["a"]
            with pytest.raises(SettingsError):
                await jobs.submit("convert", {"name": "a"}, id="same", owner="another")

    run(main())


@pytest.mark.parametrize("id", ["", "a/b", "../x", "a.b", "x" * 65, "é", "a\n"])
def test_bad_ids_are_refused(tmp_path: Path, id: str) -> None:
    async def main() -> None:
        async with board(tmp_path) as jobs:
            with pytest.raises(SettingsError):
                await jobs.submit("convert", {"name": "a"}, id=id)
            with pytest.raises(SettingsError):
                await jobs.submit("other", {"name": "a"})
            with pytest.raises(SettingsError):
                await jobs.submit("convert", {"name": object()})
            with pytest.raises(JobNotFoundError):
                await jobs.get(id)

    run(main())


def test_a_caller_who_leaves_while_his_job_is_written_leaves_nothing(tmp_path: Path) -> None:
    begun, go_on = threading.Event(), threading.Event()

    class Slow(LocalStorage):
        def write(self, key: str, data: bytes, **options: Any) -> Any:
            begun.set()
            assert go_on.wait(60)
            return super().write(key, data, **options)

    async def main() -> None:
        jobs = JobBoard(Slow(tmp_path), {"convert": instant}, LimitsConfig(jobs=1))
        await jobs.start()
        leaving = asyncio.create_task(jobs.submit("convert", {"name": "a"}))
        await until(begun.is_set)
        leaving.cancel()
        go_on.set()
        with pytest.raises(asyncio.CancelledError):
            await leaving
        stays = await jobs.submit("convert", {"name": "b"})  # the only place is free again
        assert (await jobs.wait(stays.id, 60)).status == "done"
        await jobs.close()
        assert on_disk(tmp_path) == {stays.id: "done"}

    run(main())


def test_one_board_at_a_time_for_a_folder(tmp_path: Path) -> None:
    async def main() -> None:
        second = JobBoard(LocalStorage(tmp_path), {"convert": instant}, LimitsConfig())
        async with board(tmp_path) as first:
            made = await first.submit("convert", {"name": "a"})
            await first.wait(made.id, 60)
            with pytest.raises(StorageUnavailableError, match="another service"):
                await second.start()
        await second.start()
        assert (await second.get(made.id)).status == "done"
        await second.close()

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


def test_large_requests_do_not_fill_the_memory(tmp_path: Path) -> None:
    """Jobs that hold whole takes are refused when there are too many, and go early when they are done."""
    large = {"name": "large", "take": "x" * 200_000}

    async def main() -> None:
        async with board(tmp_path, sweep_seconds=3600, state_bytes=1_000_000) as jobs:
            small = await jobs.submit("convert", {"name": "small"})
            first = []
            for _ in range(4):  # one after the other: the order in which they end decides which go first
                first.append(await jobs.submit("convert", large))
                assert (await jobs.wait(first[-1].id, 60)).status == "done"
            with pytest.raises(QueueFullError, match="hold"):
                await jobs.submit_all("convert", [large] * 2)
            await until(lambda: first[1].id not in jobs._records)  # the refusal had them looked at
            assert (await jobs.get(small.id)).status == "done" and (await jobs.get(first[-1].id)).status == "done"
            await jobs.submit_all("convert", [large] * 2)
        async with board(tmp_path, state_bytes=1_000_000) as jobs:
            with pytest.raises(QueueFullError, match="hold"):
                await jobs.submit_all("convert", [large] * 3)

    run(main())
