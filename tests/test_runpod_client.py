"""RunPod's own client against the gateway, with nothing changed but its base URL."""

from __future__ import annotations

import asyncio
import base64
import io
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests
from http_server import Request, Running, serving
from nano_parts import offer, wav
from runpod_service import Running as Gateway
from runpod_service import runpod_service

from rocktop_ray.audio.decode import probe
from serve_apps.gateway.key_ring import KeyFile

runpod = pytest.importorskip("runpod")
FINAL = ("COMPLETED", "FAILED", "CANCELLED", "TIMED_OUT")


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    with runpod_service(tmp_path_factory.mktemp("runpod"), limits={"running_jobs": 1}) as running:
        yield running


@pytest.fixture(scope="module")
def files() -> Iterator[Running]:
    with serving({}) as running:
        yield running


@pytest.fixture
def endpoint(gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> object:
    point_at(gateway, monkeypatch)
    return runpod.Endpoint("voice")


def point_at(gateway: Gateway, monkeypatch: pytest.MonkeyPatch, key: str = "any") -> None:
    monkeypatch.setattr(runpod, "endpoint_url_base", f"{gateway.url}/v2")
    monkeypatch.setattr(runpod, "api_key", key)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


class Gate:
    """A take that comes when it is let."""

    def __init__(self, files: Running) -> None:
        self.open = threading.Event()
        files.answers["/slow.wav"] = self.answer
        self.url = files.url("/slow.wav")

    def answer(self, link: socket.socket, request: Request) -> None:
        self.open.wait(120)
        body = wav()
        link.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body)

    def __enter__(self) -> Gate:
        return self

    def __exit__(self, *_: object) -> None:
        self.open.set()


def check(output: dict) -> None:
    assert output["result"] == "success", output
    audio = base64.b64decode(output["audio_url"].removeprefix("data:audio/ogg;base64,"), validate=True)
    assert probe(io.BytesIO(audio)).codec == "opus"
    assert output["f0_method"] == "fcpe"


def test_run_and_wait(endpoint, files: Running) -> None:
    job = endpoint.run({"input": {**offer(files), "tag": "t"}})
    output = job.output(timeout=120)
    assert job.status() == "COMPLETED" and output["tag"] == "t"
    check(output)
    assert list(job.stream()) == []


def test_run_sync(endpoint, files: Running) -> None:
    check(endpoint.run_sync(offer(files), timeout=120))  # the client itself wraps it into {"input": ...}


def test_a_failed_request_is_a_completed_job(endpoint, files: Running) -> None:
    output = endpoint.run_sync({"input": {**offer(files), "model_url": files.url("/none.pth")}}, timeout=120)
    assert output["result"] == "failure" and output["message"].startswith("Model file not found at URL: ")
    assert output["refresh_worker"] is False


def test_run_sync_that_takes_longer_than_the_gateway_waits(
    tmp_path: Path, files: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    with runpod_service(tmp_path, nano={"sync_seconds": 0.2}) as gateway, Gate(files) as gate:
        point_at(gateway, monkeypatch)
        threading.Timer(1.0, gate.open.set).start()
        check(runpod.Endpoint("voice").run_sync({"input": {**offer(files), "vocal_url": gate.url}}, timeout=120))


def test_status_stream_cancel_health_and_purge(endpoint, files: Running) -> None:
    before = endpoint.health()["jobs"]
    with Gate(files) as gate:
        data = {"input": {**offer(files), "vocal_url": gate.url}}
        running, waiting, last = endpoint.run(data), endpoint.run(data), endpoint.run(data)
        until(lambda: running.status() == "IN_PROGRESS")
        assert waiting.status() == "IN_QUEUE"
        chunk = next(running.stream())
        assert set(chunk) == {"seconds_done", "seconds_total", "stage"}
        health = endpoint.health()
        assert set(health["jobs"]) == {"completed", "failed", "inProgress", "inQueue", "retried"}
        assert (health["jobs"]["inProgress"], health["jobs"]["inQueue"]) == (1, 2)
        assert set(health["workers"]) == {"idle", "initializing", "ready", "running", "throttled", "unhealthy"}
        assert (health["workers"]["running"], health["workers"]["idle"]) == (1, 0)
        assert waiting.cancel() == {"id": waiting.job_id, "status": "CANCELLED"}
        assert endpoint.purge_queue() == {"removed": 1, "status": "completed"}
        assert (waiting.status(), last.status()) == ("CANCELLED", "CANCELLED")
        began = time.monotonic()
        assert running.cancel()["status"] == "CANCELLED"
        assert time.monotonic() - began < 60
        assert running.status() == "CANCELLED" and running.output() is None
    after = endpoint.health()["jobs"]
    assert (after["inProgress"], after["inQueue"], after["completed"]) == (0, 0, before["completed"])


def until(true: object, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not true():  # type: ignore[operator]
        assert time.monotonic() < end
        time.sleep(0.05)


def test_asyncio_client(gateway: Gateway, files: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    point_at(gateway, monkeypatch)
    from runpod import AsyncioEndpoint
    from runpod.http_client import ClientSession

    async def work() -> None:
        async with ClientSession() as session:
            endpoint = AsyncioEndpoint("voice", session)
            job = await endpoint.run(offer(files))
            check(await job.output(timeout=120))
            assert await job.status() == "COMPLETED"
            assert [chunk async for chunk in job.stream()] == []
            assert (await endpoint.health())["jobs"]["completed"] >= 1
            with Gate(files) as gate:
                slow = await endpoint.run({**offer(files), "vocal_url": gate.url})
                assert (await slow.cancel())["status"] == "CANCELLED"
            assert (await endpoint.purge_queue())["status"] == "completed"

    asyncio.run(work())


def test_unknown_jobs_and_bodies(endpoint, gateway: Gateway, files: Running) -> None:
    with pytest.raises(requests.HTTPError, match="404"):
        runpod.endpoint.Job("voice", "no-such-job", endpoint.rp_client).status()
    job = endpoint.run({"input": offer(files)})
    with pytest.raises(requests.HTTPError, match="404"):
        runpod.endpoint.Job("another", job.job_id, endpoint.rp_client).status()
    with pytest.raises(requests.HTTPError, match="422"):
        endpoint.run({"input": {"x": 1}, "unknown": 1})


def test_keys(tmp_path: Path, files: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    ring = KeyFile(tmp_path / "keys.json")
    first, second = ring.add("first"), ring.add("second")
    with runpod_service(tmp_path, security={"keys": str(tmp_path / "keys.json")}) as gateway:
        point_at(gateway, monkeypatch, "wrong")
        with pytest.raises(RuntimeError, match="401"):
            runpod.Endpoint("voice").run_sync({"input": offer(files)})
        point_at(gateway, monkeypatch, first)
        mine = runpod.Endpoint("voice")
        job = mine.run({"input": offer(files)})
        check(job.output(timeout=120))
        point_at(gateway, monkeypatch, second)
        other = runpod.Endpoint("voice")
        with pytest.raises(requests.HTTPError, match="404"):
            runpod.endpoint.Job("voice", job.job_id, other.rp_client).status()
        assert other.health()["jobs"]["completed"] == 0 and mine.health()["jobs"]["completed"] == 1
        with Gate(files) as gate:
            slow = {"input": {**offer(files), "vocal_url": gate.url}}
            theirs = [mine.run(slow) for _ in range(4)]
            until(lambda: [one.status() for one in theirs].count("IN_PROGRESS") == 2)
            assert other.purge_queue()["removed"] == 0
            assert mine.purge_queue()["removed"] == 2
            for one in theirs:
                one.cancel()
