"""What a board of jobs refuses, tries again, and says of what went wrong."""

from __future__ import annotations

import asyncio
import json
import threading
from pathlib import Path
from typing import Any

import pytest
from job_steps import Steps, Tell, board, instant, on_disk, run, until

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
from serve_apps.jobs.protocol import Job


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
