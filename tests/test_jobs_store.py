"""Jobs on a real S3 server, one that stops answering, and what is kept for how long."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from job_stand_ins import Mill, ground, order_for
from job_steps import Steps, board, on_disk, run, until
from s3_server import ACCESS_KEY, BUCKET, SECRET_KEY, Server

from rocktop_ray.errors import (
    JobNotFoundError,
    JobStateError,
    ObjectChangedError,
    ObjectMissingError,
    StorageUnavailableError,
)
from rocktop_ray.store.local import LocalStorage
from rocktop_ray.store.settings import StorageSettings
from rocktop_ray.store.storage import open_storage
from serve_apps.config import LimitsConfig
from serve_apps.jobs.board import JobBoard
from serve_apps.jobs.convert_runner import KIND, ConvertRunner, payload
from serve_apps.spool import Spool

pytestmark = pytest.mark.xdist_group("s3")


def _spool(s3: Server, prefix: str, seconds: float = 20.0) -> Spool:
    keys = {"access_key": ACCESS_KEY, "secret_key": SECRET_KEY}
    limits = {"connect_seconds": seconds, "read_seconds": seconds, "attempts": 1}
    return Spool(open_storage(f"s3://{BUCKET}/{prefix}", StorageSettings(s3.endpoint, **keys, **limits)))


def _board(spool: Spool, mill: Mill | None = None) -> JobBoard:
    runner = ConvertRunner(mill or Mill(spool, 10), spool, lambda url: spool.reading(url))
    return JobBoard(spool.store, {KIND: runner}, LimitsConfig(running_jobs=2))


def test_jobs_live_in_s3(s3: Server) -> None:
    async def main() -> None:
        spool = _spool(s3, "live")
        jobs = _board(spool, Mill(spool, 10, 0.05, most=4))
        await jobs.start()
        for number in range(6):
            spool.put(f"takes/t{number}", f"take {number}".encode())
            await jobs.submit(KIND, payload(f"j{number}", order_for(f"takes/t{number}"), "x.wav"), id=f"j{number}")
        await until(lambda: jobs._records["j1"].job.progress.seconds_done > 0.2)
        await jobs.close()
        again = _board(spool)
        await again.start()
        for number in range(6):
            assert (await again.wait(f"j{number}", 60)).status == "done"
            assert spool.store.read(f"results/j{number}.flac") == ground(f"take {number}".encode(), order_for("x"))
        await again.remove("j0")
        keys = {found.key for found in spool.store.list()}
        assert not any("j0" in key or key == "takes/t0" for key in keys)
        assert {"jobs/j1.json", "takes/t1", "results/j1.flac", "results/j1.melody"} <= keys
        await again.close()

    run(main())


def test_parts_of_objects_in_s3(s3: Server) -> None:
    spool, data = _spool(s3, "parts"), bytes(range(256)) * 4000
    spool.put("results/x.flac", data)
    for start, stop in ((0, len(data)), (5, 6), (1000, 900_000), (len(data) - 7, len(data))):
        assert b"".join(spool.chunks("results/x.flac", start, stop, size=100_000)) == data[start:stop]
    with pytest.raises(ObjectChangedError):
        list(spool.chunks("results/x.flac", 0, len(data) + 1))
    with pytest.raises(ObjectMissingError):
        next(spool.chunks("results/none.flac", 0, 1))
    spool.remove("results/x.flac", "results/none.flac")
    assert not spool.store.exists("results/x.flac")


def test_a_store_that_stops_answering_costs_time_and_no_job(s3: Server, caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        spool = _spool(s3, "away", seconds=5.0)
        mill = Mill(spool, 10, 0.05, most=4)
        jobs = _board(spool, mill)
        await jobs.start()
        for number in range(4):
            spool.put(f"takes/t{number}", f"take {number}".encode())
            await jobs.submit(KIND, payload(f"j{number}", order_for(f"takes/t{number}"), "x.wav"), id=f"j{number}")
        await until(lambda: jobs._records["j1"].job.progress.seconds_done > 0.1)
        os.kill(s3.pid, signal.SIGSTOP)
        mill.most = 10
        try:
            with pytest.raises(StorageUnavailableError):
                await jobs.submit(KIND, {"lost": True}, id="refused")
            began = time.monotonic()
            cancelled = await jobs.cancel("j3")
            assert cancelled.status == "cancelled" and time.monotonic() - began < 60
            await asyncio.sleep(2)
            for number in range(3):
                assert (await jobs.get(f"j{number}")).status in ("queued", "running")
        finally:
            os.kill(s3.pid, signal.SIGCONT)
        for number in range(3):
            assert (await jobs.wait(f"j{number}", 60)).status == "done"
            assert spool.store.read(f"results/j{number}.flac") == ground(f"take {number}".encode(), order_for("x"))
        assert jobs._records["j0"].starts == 1  # tried again by this board, not by another
        with pytest.raises(JobNotFoundError):
            await jobs.get("refused")
        await until(lambda: jobs._ledger.failing is None and not jobs._ledger._wanted)
        await jobs.close()
        assert "jobs/refused.json" not in {found.key for found in spool.store.list("jobs/")}
        fresh = _board(spool)
        await fresh.start()
        assert [(await fresh.get(f"j{n}")).status for n in range(4)] == ["done", "done", "done", "cancelled"]
        await fresh.close()

    run(main(), 200)
    assert SECRET_KEY not in caplog.text and "tried again" in caplog.text


def _file(folder: Path, key: str, size: int, age: float = 0.0) -> Path:
    path = folder / key
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(bytes(size))
    os.utime(path, (time.time() - age, time.time() - age))
    return path


async def _made(jobs: JobBoard, folder: Path, id: str, size: int = 1000, end: bool = True) -> None:
    _file(folder, f"takes/{id}-take.wav", size)
    await jobs.submit("convert", {"name": id, "files": [f"takes/{id}-take.wav"]}, id=id)
    _file(folder, f"results/{id}.flac", size)
    _file(folder, f"results/{id}.melody", 10)
    if end:
        assert (await jobs.wait(id, 60)).status == "done"


def _files(folder: Path) -> set[str]:
    return {path.name for part in ("takes", "results") for path in (folder / part).iterdir()}


def test_a_removed_job_takes_its_files_along(tmp_path: Path) -> None:
    async def main() -> None:
        async with board(tmp_path) as jobs:
            await _made(jobs, tmp_path, "a")
            await _made(jobs, tmp_path, "ab")
            await jobs.remove("a")
            assert _files(tmp_path) == {"ab-take.wav", "ab.flac", "ab.melody"} and set(on_disk(tmp_path)) == {"ab"}
            with pytest.raises(JobNotFoundError):
                await jobs.remove("a")
        steps = Steps()
        async with board(tmp_path / "2", steps) as jobs:
            await _made(jobs, tmp_path / "2", "runs", end=False)
            with pytest.raises(JobStateError):
                await jobs.remove("runs")

    run(main())


def test_old_jobs_go_and_those_that_wait_or_run_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        steps = Steps()
        limits = LimitsConfig(running_jobs=1, keep_hours=10.0)
        async with board(tmp_path, steps, limits=limits, sweep_seconds=0.05) as jobs:
            steps.let("old")
            await _made(jobs, tmp_path, "old")
            await _made(jobs, tmp_path, "runs", end=False)
            await _made(jobs, tmp_path, "waits", end=False)
            assert len(jobs._records) == 3
            later = time.time() + 11 * 3600
            monkeypatch.setattr("serve_apps.jobs.retention.time", SimpleNamespace(time=lambda: later))
            await until(lambda: "old" not in jobs._records)
            await asyncio.sleep(0.5)
            assert {job.id for job in await jobs.list()} == {"runs", "waits"}
            await until(lambda: not any("old" in name for name in _files(tmp_path)))
            assert len(_files(tmp_path)) == 6 and set(on_disk(tmp_path)) == {"runs", "waits"}

    run(main())


def test_the_oldest_go_until_all_fits(tmp_path: Path) -> None:
    async def main() -> None:
        limits = LimitsConfig(keep_bytes=1 << 20, running_jobs=1)
        async with board(tmp_path, limits=limits, sweep_seconds=3600) as jobs:
            for id in ("first", "second", "third"):
                await _made(jobs, tmp_path, id, size=300_000)
            old, orphans = await jobs._keeper.plan(
                [record.job for record in jobs._records.values()], dict.fromkeys(jobs._records, 0)
            )
            assert [job.id for job in old] == ["first", "second"][: len(old)] and not orphans
            assert len(old) == 2  # 1.8 MB, of which at most 1.05 MB may stay
        async with board(tmp_path, limits=limits, sweep_seconds=0.05) as jobs:
            await until(lambda: set(jobs._records) == {"third"})
            await until(lambda: _files(tmp_path) == {"third-take.wav", "third.flac", "third.melody"})

    run(main())


def test_what_killed_requests_left_goes_after_a_while(tmp_path: Path) -> None:
    async def main() -> None:
        old = [
            _file(tmp_path, "takes/lost.wav", 10, age=8 * 3600),
            _file(tmp_path, "results/lost.flac", 10, age=8 * 3600),
            _file(tmp_path, "takes/.upload-0123456789ab.part", 10, age=8 * 3600),
        ]
        new = [_file(tmp_path, "takes/new.wav", 10), _file(tmp_path, "takes/.new-0123456789ab.part", 10)]
        foreign = [_file(tmp_path, "takes/.hidden", 10, age=8 * 3600), _file(tmp_path, "else/x", 10, age=8 * 3600)]
        steps = Steps()
        async with board(tmp_path, steps, sweep_seconds=0.05) as jobs:
            made = await jobs.submit("convert", {"name": "a", "files": ["takes/aged.wav", "takes/../../x", 5]})
            kept = _file(tmp_path, "takes/aged.wav", 10, age=8 * 3600)
            await until(lambda: not any(path.exists() for path in old))
            await asyncio.sleep(0.2)
            assert all(path.exists() for path in [*new, *foreign, kept])
            steps.let("a")
            await jobs.wait(made.id, 60)

    run(main())


def test_a_sweep_survives_a_store_that_refuses(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    class Shaky(LocalStorage):
        refuses = 0

        def list(self, prefix: str = "") -> Any:
            Shaky.refuses += 1
            if prefix == "takes/" and Shaky.refuses < 5:
                raise StorageUnavailableError("away")
            return super().list(prefix)

    async def main() -> None:
        _file(tmp_path, "takes/lost.wav", 10, age=8 * 3600)
        jobs = JobBoard(Shaky(tmp_path), {}, LimitsConfig(), sweep_seconds=0.02)
        await jobs.start()
        await until(lambda: not (tmp_path / "takes/lost.wav").exists())
        await jobs.close()

    run(main())
    assert "storage_unavailable" in caplog.text
