"""Jobs on a real Ray Serve: the process that keeps them is killed and replaced while they run."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from serve_cluster import PITCH, kill_replica, replica_pids, small_config, take_bytes

pytestmark = pytest.mark.xdist_group("ray")

FIELDS = {"voice": "anna", "pitch": PITCH, "format": "wav"}


@pytest.fixture(scope="module")
def client(ray_cluster: int, ray_home: Path) -> Iterator[httpx.Client]:
    from ray import serve

    from serve_apps.app import build_app

    config = small_config(ray_home, store=str(ray_home / "jobs"), limits={"running_jobs": 2})
    serve.run(build_app(config), name="jobs", route_prefix="/")
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{ray_cluster}", timeout=120, trust_env=False) as made:
            yield made
    finally:
        serve.delete("jobs")


def _batch(client: httpx.Client, count: int, seconds: float = 1.0) -> dict[str, Any]:
    parts = [("take", (f"{n}.wav", take_bytes(seconds, 200 + 20 * n))) for n in range(count)]
    answer = client.post("/v1/batches", files=parts, data=FIELDS)
    assert answer.status_code == 202, answer.text
    batch: dict[str, Any] = answer.json()
    return batch


def _ended(client: httpx.Client, batch: dict[str, Any], seconds: float = 200) -> list[dict[str, Any]]:
    end = time.monotonic() + seconds
    while True:
        state = client.get(batch["links"]["self"]).json()
        if state["counts"]["queued"] == state["counts"]["running"] == 0:
            jobs: list[dict[str, Any]] = state["jobs"]
            return jobs
        assert time.monotonic() < end, state["counts"]
        time.sleep(0.2)


def _results(client: httpx.Client, jobs: list[dict[str, Any]]) -> list[bytes]:
    assert [job["status"] for job in jobs] == ["done"] * len(jobs), [job["error"] for job in jobs]
    return [client.get(job["result"]["url"]).content for job in jobs]


def test_a_killed_keeper_costs_no_job_and_no_byte(client: httpx.Client) -> None:
    whole = _results(client, _ended(client, _batch(client, 6)))
    assert all(data.startswith(b"RIFF") for data in whole) and len(set(whole)) == 6
    batch = _batch(client, 6)
    seen: list[str] = []

    def follow() -> None:
        with client.stream("GET", batch["jobs"][-1]["links"]["events"]) as answer:
            seen.extend(line for line in answer.iter_lines() if line.startswith(("event", "data")))

    follower = threading.Thread(target=follow)
    follower.start()
    while client.get(batch["links"]["self"]).json()["counts"]["done"] == 0:
        time.sleep(0.02)
    killed = kill_replica("jobs", "Jobs")
    jobs = _ended(client, batch)
    assert _results(client, jobs) == whole
    follower.join(60)
    assert seen[-2] == "event: done" and json.loads(seen[-1][6:])["id"] == batch["jobs"][-1]["id"]
    assert replica_pids("jobs", "Jobs") != [killed]


def test_the_boards_errors_and_ends_come_through(client: httpx.Client) -> None:
    answer = client.get("/v1/jobs/nobody")
    assert answer.status_code == 404 and answer.json()["code"] == "job_not_found"
    assert client.get("/v1/jobs/nobody/events").status_code == 404
    job = client.post("/v1/jobs", files={"take": ("x.wav", b"RIFF but no sound")}, data=FIELDS).json()
    with client.stream("GET", job["links"]["events"]) as events:
        lines = [line for line in events.iter_lines() if line.startswith(("event", "data"))]
    assert lines[-2] == "event: failed" and json.loads(lines[-1][6:])["error"]["code"] == "unsupported_format"
    assert client.delete(job["links"]["self"]).json()["status"] == "failed"
    assert client.get(job["links"]["self"]).status_code == 404
    for _ in range(3):  # a page more than is asked for
        client.post("/v1/jobs", files={"take": ("x.wav", b"RIFF but no sound")}, data=FIELDS)
    listed = client.get("/v1/jobs?limit=2").json()
    assert len(listed["jobs"]) == 2 and listed["next"] == listed["jobs"][-1]["id"]
    reply = client.post("/v1/convert", files={"take": ("x.wav", take_bytes(0.3))}, data={**FIELDS, "reply": "json"})
    assert reply.status_code == 200 and reply.json()["status"] == "done"


def test_a_clean_stop_takes_jobs_along(client: httpx.Client, ray_home: Path) -> None:
    """A redeployed application goes on with what its predecessor left."""
    from ray import serve

    from serve_apps.app import build_app

    whole = _results(client, _ended(client, _batch(client, 3, 2.0)))
    batch = _batch(client, 3, 2.0)
    before = replica_pids("jobs", "Jobs")
    limits = {"running_jobs": 1}
    serve.run(
        build_app(small_config(ray_home, store=str(ray_home / "jobs"), limits=limits)), name="jobs", route_prefix="/"
    )
    assert replica_pids("jobs", "Jobs") != before
    jobs = _ended(client, batch)
    assert _results(client, jobs) == whole
    for job in jobs:
        state = json.loads((ray_home / "jobs" / "jobs" / f"{job['id']}.json").read_text())
        assert state["starts"] == 1  # no run was cut off by force
