"""Results of RVC-Nano in a bucket: the layout on a real S3 server; buckets that are down, slow, closed or gone."""

from __future__ import annotations

import asyncio
import json
import logging
import socket
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from free_ports import free_port
from http_server import Request, Running, fixed, reply, serving
from nano_parts import REQUEST_ID, Parts, offer, parts
from s3_server import ACCESS_KEY, BUCKET, SECRET_KEY, Server

from rocktop_ray.audio.decode import probe
from rocktop_ray.errors import SettingsError
from rocktop_ray.store.settings import StorageSettings
from rocktop_ray.store.storage import Storage, open_storage
from serve_apps.nano.bucket import ResultBucket
from serve_apps.nano.worker import NanoWorker

FOLDER = f"worker-rvc-nano/request-{REQUEST_ID}"
PATIENT = StorageSettings(
    access_key=ACCESS_KEY, secret_key=SECRET_KEY, connect_seconds=60, read_seconds=60, attempts=2, slowest=0
)


@pytest.fixture(scope="module")
def files() -> Iterator[Running]:
    with serving({}) as running:
        yield running


@pytest.fixture(scope="module")
def ill() -> Iterator[Running]:
    with serving({}) as running:
        yield running


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Parts:
    monkeypatch.setenv("ROCKTOP_HOME", str(tmp_path / "home"))
    return parts(tmp_path)


def environment(endpoint: str, **more: str) -> dict[str, str]:
    return {
        "S3_ENDPOINT_URL": endpoint,
        "S3_ACCESS_KEY": ACCESS_KEY,
        "S3_SECRET_KEY": SECRET_KEY,
        "S3_BUCKET_NAME": BUCKET,
        **more,
    }


def bucket(endpoint: str, **changes: Any) -> ResultBucket:
    return ResultBucket(open_storage(f"s3://{BUCKET}", replace(PATIENT, endpoint_url=endpoint, **changes)), 600)


def run(worker: NanoWorker, data: object, job: str = "job-1", request_id: str = REQUEST_ID) -> dict[str, Any]:
    outcome = asyncio.run(worker.run(data, job, lambda _: None, request_id=request_id))
    assert outcome.audio is None
    return outcome.reply


def store(s3: Server) -> Storage:
    return open_storage(
        f"s3://{BUCKET}",
        StorageSettings(endpoint_url=s3.endpoint, access_key=ACCESS_KEY, secret_key=SECRET_KEY),
    )


def test_layout_and_signed_address(
    made: Parts, files: Running, s3: Server, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    data = {**offer(files), "index_url": files.url("/model.index"), "tag": "t"}
    worker = made.worker(lambda: ResultBucket.from_environment(600, environment(s3.endpoint)))
    with caplog.at_level(logging.INFO):
        body = run(worker, {**data, "vocal_url": data["vocal_url"] + "?X-Amz-Signature=s3cret"})
    assert body["result"] == "success", body
    bucket = store(s3)
    kept = {found.key: found.bytes for found in bucket.list(FOLDER)}
    assert set(kept) == {f"{FOLDER}/{name}" for name in ("input.opus.ogg", "output.opus.ogg", "metadata.json")}
    with urllib.request.urlopen(body["audio_url"]) as answer:
        got = answer.read()
        assert answer.headers["Content-Type"] == "audio/ogg"
    assert len(got) == body["file_size_bytes"] == kept[f"{FOLDER}/output.opus.ogg"]
    for name in ("input", "output"):
        bucket.get_file(f"{FOLDER}/{name}.opus.ogg", tmp_path / f"{name}.ogg")
        info = probe(tmp_path / f"{name}.ogg")
        assert (info.codec, info.channels) == ("opus", 1) and info.seconds == pytest.approx(1.0, abs=0.02)
    metadata = json.loads(bucket.read(f"{FOLDER}/metadata.json"))
    assert metadata["success"] is True and metadata["tag"] == "t"
    assert metadata["output_audio"]["key"] == f"{FOLDER}/output.opus.ogg"
    assert metadata["output_audio"]["file_size_bytes"] == len(got)
    assert metadata["timing"]["upload_seconds"] > 0
    everything = json.dumps(metadata) + "".join(str(vars(record)) for record in caplog.records)
    for secret in ("s3cret", SECRET_KEY, "Signature="):
        assert secret not in everything
    assert body["timing_details"]["upload"] > 0
    assert made.files() == []


def test_public_prefix(made: Parts, files: Running, s3: Server) -> None:
    public = environment(s3.endpoint, S3_PUBLIC_URL="https://cdn.example.com/out/")
    body = run(made.worker(lambda: ResultBucket.from_environment(600, public)), offer(files))
    assert body["audio_url"] == f"https://cdn.example.com/out/{FOLDER}/output.opus.ogg"


def test_no_s3_and_half_set_up_s3(made: Parts, files: Running, s3: Server) -> None:
    assert ResultBucket.from_environment(600, {}) is None
    half = environment(s3.endpoint)
    del half["S3_SECRET_KEY"]
    with pytest.raises(SettingsError, match="S3_SECRET_KEY"):
        ResultBucket.from_environment(600, half)
    body = run(made.worker(lambda: ResultBucket.from_environment(600, half)), offer(files))
    assert body["message"].startswith("S3 storage not configured: ") and "S3_SECRET_KEY" in body["message"]
    assert made.converted == []  # found out before any work


def test_wrong_keys_and_wrong_bucket(made: Parts, files: Running, s3: Server) -> None:
    wrong = run(made.worker(lambda: bucket(s3.endpoint, secret_key="wrong")), offer(files))
    assert wrong["message"].startswith("S3 authentication failed: "), wrong
    gone = {**environment(s3.endpoint), "S3_BUCKET_NAME": "no-such-bucket"}
    missing = run(made.worker(lambda: ResultBucket.from_environment(600, gone)), offer(files))
    assert missing["message"].startswith("S3 bucket error: "), missing
    for body in (wrong, missing):
        assert body["refresh_worker"] is False and SECRET_KEY not in body["message"]


def silent(link: socket.socket, request: Request) -> None:
    time.sleep(120)


DOWN = {
    "down": (None, "S3 upload failed: "),
    "busy": (fixed(b"", status="503 Slow Down"), "S3 upload failed: "),
    "silent": (silent, "Upload timeout: "),
}


@pytest.mark.parametrize("case", DOWN)
def test_bucket_that_does_not_take_it(made: Parts, files: Running, ill: Running, s3: Server, case: str) -> None:
    answer, said = DOWN[case]
    endpoint = f"http://127.0.0.1:{free_port()}"
    if answer is not None:
        ill.answers["*"] = answer
        endpoint = ill.url("")
    data = offer(files)
    began = time.monotonic()
    limits = {"connect_seconds": 0.5, "read_seconds": 0.5} if case == "silent" else {}
    body = run(made.worker(lambda: bucket(endpoint, **limits)), data)
    assert time.monotonic() - began < 60
    assert body["result"] == "failure" and body["message"].startswith(said), body
    assert body["refresh_worker"] is False and "127.0.0.1" not in body["message"]
    assert len(made.converted) == 1
    assert all(key.startswith("results/nano-") for key in made.files())

    # A client that tries again does not wait for the conversion again, and gets what it would have got.
    again = run(made.worker(lambda: bucket(s3.endpoint)), {**data, "tag": "again"}, "job-2", "2" + REQUEST_ID[1:])
    assert again["result"] == "success" and again["duration_seconds"] == pytest.approx(1.0, abs=1e-3)
    assert (again["model_version"], again["f0_method"]) == ("v1", "fcpe")
    assert len(made.converted) == 1
    other = run(made.worker(lambda: bucket(s3.endpoint)), {**data, "f0_up_key": 1}, "job-3", "3" + REQUEST_ID[1:])
    assert other["result"] == "success" and len(made.converted) == 2


def test_audio_is_delivered_where_only_metadata_are_refused(made: Parts, files: Running, s3: Server) -> None:
    class NoMetadata(ResultBucket):
        def put_metadata(self, request_id: str, metadata: Any) -> None:
            raise SettingsError("refused")

    there = NoMetadata(store(s3), 600)
    assert run(made.worker(lambda: there), offer(files))["result"] == "success"


def test_bucket_that_fails_half_way(made: Parts, files: Running, ill: Running) -> None:
    ill.answers["*"] = lambda link, request: link.sendall(reply(b"", status="500 Internal Server Error"))
    body = run(made.worker(lambda: bucket(ill.url(""))), offer(files))
    assert body["message"].startswith("S3 upload failed: ")
    assert not [key for key in made.files() if key.startswith("takes/")]
