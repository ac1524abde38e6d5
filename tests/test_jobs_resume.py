"""Processes that are killed, states that are damaged: what was acknowledged goes on."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from job_stand_ins import Mill, ground, order_for
from job_steps import Steps, board, instant, on_disk, run, until

from rocktop_ray.errors import StageLostError
from serve_apps.config import LimitsConfig
from serve_apps.jobs.protocol import Job


def _process(folder: Path, new: int, pause: float, first: str = "take 0", most: int = 10) -> subprocess.Popen[str]:
    here = Path(__file__).parent
    return subprocess.Popen(
        [sys.executable, str(here / "job_stand_ins.py"), str(folder), str(new), str(pause), first, str(most)],
        stdout=subprocess.PIPE,
        text=True,
        cwd=here,
        env={**os.environ, "PYTHONPATH": str(here.parent)},
    )


def _said(process: subprocess.Popen[str]) -> Any:
    assert process.stdout is not None
    for line in process.stdout:
        yield json.loads(line)


def test_a_process_killed_half_way_loses_nothing_and_the_bytes_are_the_same(tmp_path: Path) -> None:
    first = _process(tmp_path, 4, 0.1, most=5)
    try:
        for id, status, done in _said(first):
            if id == "job0" and status == "running" and done >= 0.4:
                break
        first.send_signal(signal.SIGKILL)
        first.wait()
    finally:
        first.kill()
    before = on_disk(tmp_path)
    assert set(before) == {f"job{number}" for number in range(4)}
    assert before["job0"] == "running" and "queued" in before.values() and "done" not in before.values()
    again = _process(tmp_path, 0, 0.0)
    try:
        ends = {id: status for id, status, _ in _said(again)}
        assert again.wait(timeout=120) == 0
    finally:
        again.kill()
    assert ends == dict.fromkeys(before, "done") == on_disk(tmp_path)
    for number in range(4):
        result = (tmp_path / "results" / f"job{number}.flac").read_bytes()
        assert result == ground(f"take {number}".encode(), order_for("x"))


def test_a_job_that_kills_its_process_is_given_up_and_others_are_not(tmp_path: Path) -> None:
    lives = []
    for life in range(6):
        process = _process(tmp_path, 0 if life else 3, 0.2, "poison")
        lives.append({id for id, status, _ in _said(process) if status == "running"})
        if process.wait(timeout=120) == 0:
            break
    assert on_disk(tmp_path) == {"job0": "failed", "job1": "done", "job2": "done"}
    assert [("job0" in life, len(life) > 1) for life in lives] == [
        (True, True),
        (True, True),
        (True, False),
        (False, True),
    ]
    error = json.loads((tmp_path / "jobs/job0.json").read_text())["job"]["error"]
    assert error["code"] == "job_crashed" and "3 times" in error["message"] and error["status"] == 500


def test_a_clean_stop_counts_as_no_kill(tmp_path: Path) -> None:
    async def main() -> None:
        for _ in range(5):
            steps = Steps()
            async with board(tmp_path, steps) as jobs:
                if not await jobs.list():
                    await jobs.submit("convert", {"name": "long"}, id="long")
                await until(lambda steps=steps: steps.started == ["long"])
            assert on_disk(tmp_path) == {"long": "queued"}
        async with board(tmp_path) as jobs:
            assert (await jobs.wait("long", 60)).status == "done"

    run(main())


def test_a_job_that_ran_and_waits_again_is_called_waiting_in_the_store(tmp_path: Path) -> None:
    """Else it would come before its owner's earlier ones at the next start."""

    async def main() -> None:
        async with board(tmp_path, Steps(), limits=LimitsConfig(running_jobs=2)) as jobs:
            for name in ("first", "second"):
                await jobs.submit("convert", {"name": name}, id=name)
        for path in (tmp_path / "jobs").iterdir():  # as if the process had been killed, twice
            state = json.loads(path.read_text())
            state["starts"] = 2
            state["job"]["status"] = "running"
            path.write_text(json.dumps(state))
        steps = Steps()
        async with board(tmp_path, steps, limits=LimitsConfig(running_jobs=2)) as jobs:
            await until(lambda: steps.started == ["first"])  # alone, as it may be what kills
            await until(lambda: on_disk(tmp_path) == {"first": "running", "second": "queued"})
            steps.let("first", "second")
            assert (await jobs.wait("second", 60)).status == "done"

    run(main())


def test_damaged_states_are_set_aside(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        async with board(tmp_path) as jobs:
            for name in ("fine", "cut", "other"):
                await jobs.submit("convert", {"name": name}, id=name)
                await jobs.wait(name, 60)
        files = tmp_path / "jobs"
        cut = (files / "cut.json").read_text()[:40]
        (files / "cut.json").write_text(cut)
        (files / "other.json").write_text((files / "other.json").read_text().replace('"version":1', '"version":9'))
        (files / "zero.json").write_bytes(b"")
        (files / "list.json").write_text("[1]")
        (files / "note.txt").write_text("not ours")
        async with board(tmp_path) as jobs:
            assert [job.id for job in await jobs.list()] == ["fine"]
            made = await jobs.submit("convert", {"name": "new"}, id="cut")
            assert (await jobs.wait(made.id, 60)).status == "done"
        assert {path.name for path in (tmp_path / "damaged").iterdir()} == {
            *("cut.json", "other.json", "zero.json", "list.json")
        }
        assert (tmp_path / "damaged/cut.json").read_text() == cut and (files / "note.txt").exists()
        assert "set aside" in caplog.text

    run(main())


def test_a_take_that_kills_stages_fails_after_three_tries(tmp_path: Path) -> None:
    tries: list[float] = []

    async def lost(job: Job, tell: Any) -> dict[str, Any]:
        tries.append(time.monotonic())
        raise StageLostError("gone", retryable=job.payload["name"] == "again")

    async def main() -> None:
        async with board(tmp_path, lost) as jobs:
            for name, count in (("again", 3), ("once", 1)):
                tries.clear()
                made = await jobs.submit("convert", {"name": name})
                assert (await jobs.wait(made.id, 60)).error["code"] == "stage_lost"
                assert len(tries) == count

    run(main())


def test_five_hundred_jobs_are_taken_up_again_quickly(tmp_path: Path) -> None:
    async def main() -> None:
        steps = Steps()
        async with board(tmp_path, steps) as jobs:
            await jobs.submit_all("convert", [{"name": str(n)} for n in range(500)])
            made = [job.id for job in reversed(await jobs.list(limit=1000))]
        began = time.monotonic()
        async with board(tmp_path, instant, limits=LimitsConfig(running_jobs=8)) as jobs:
            assert time.monotonic() - began < 30
            assert [job.id for job in reversed(await jobs.list(limit=1000))] == made
            for id in made:
                assert (await jobs.wait(id, 60)).status == "done"

    run(main())


def test_the_same_job_gives_the_same_bytes(tmp_path: Path) -> None:
    from serve_apps.jobs.convert_runner import ConvertRunner, payload
    from serve_apps.spool import Spool

    spool = Spool.open(str(tmp_path))
    spool.put("takes/abc", b"sound")
    runner = ConvertRunner(Mill(spool), spool, lambda url: spool.reading(url))
    job = Job("j1", "convert", "running", payload("j1", order_for("takes/abc"), "a.wav"), 0.0)
    hashes, told = set(), []
    for _ in range(2):
        result = asyncio.run(runner(job, told.append))
        hashes.add(hashlib.sha256((tmp_path / result["target"]).read_bytes()).hexdigest())
    assert len(hashes) == 1
    assert result["target"] == "results/j1.flac" and result["melody"] == "results/j1.melody"
    assert result["peak_dbfs"] is None  # silence has no level in JSON
    assert json.loads(json.dumps(result)) == result
    assert told[-1].seconds_done == told[-1].seconds_total == 0.4
