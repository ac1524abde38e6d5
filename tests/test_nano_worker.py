"""RVC-Nano's worker: what it replies, what it leaves behind, what it tells the log, and how it fails."""

from __future__ import annotations

import asyncio
import base64
import io
import json
import logging
import threading
from collections.abc import AsyncGenerator, Iterator
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import soundfile
import torch
from http_server import Running, fixed, reply, serving
from nano_parts import REQUEST_ID, Parts, index, offer, parts, voice, wav

from rocktop_ray.audio.decode import probe, read_take
from rocktop_ray.errors import StageLostError
from rocktop_ray.store.catalogue import lookup
from serve_apps.nano.worker import NanoWorker, with_audio
from serve_apps.observe.logs import JsonFormatter
from serve_apps.orders import Event, Order

SEED_KEYS = {
    *("result", "request_id", "tag", "audio_url", "sample_rate", "duration_seconds", "file_size_bytes", "format"),
    *("processing_time_seconds", "model_version", "timing_details"),
}
TIMINGS = {
    *("download_vocal", "download_model", "download_index", "load_model"),
    *("pitch_extraction", "inference", "encoding", "upload"),
}


@pytest.fixture(scope="module")
def one_server() -> Iterator[Running]:
    with serving({}) as running:
        yield running


@pytest.fixture
def files(one_server: Running) -> Iterator[Running]:
    one_server.requests.clear()
    yield one_server
    one_server.answers.clear()


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Parts:
    monkeypatch.setenv("ROCKTOP_HOME", str(tmp_path / "home"))
    return parts(tmp_path)


def run(worker: NanoWorker, data: object, made: Parts, job: str = "job-1", **how: Any) -> dict[str, Any]:
    async def work() -> dict[str, Any]:
        outcome = await worker.run(data, job, lambda _: None, request_id=REQUEST_ID, **how)
        body = with_audio(made.spool, outcome)
        if outcome.audio:
            made.spool.remove(outcome.audio)
        return body

    return asyncio.run(work())


def test_reply_is_v1s(made: Parts, files: Running) -> None:
    data = {**offer(files), "index_url": files.url("/model.index"), "f0_up_key": 12, "tag": "user_123"}
    body = run(made.worker(), data, made)
    assert body["result"] == "success", body
    assert set(body) == SEED_KEYS | {"f0_method"}
    assert (body["request_id"], body["tag"], body["sample_rate"], body["format"]) == (
        REQUEST_ID,
        "user_123",
        48_000,
        "ogg",
    )
    assert (body["model_version"], body["f0_method"]) == ("v1", "fcpe")
    assert set(body["timing_details"]) == TIMINGS
    assert body["duration_seconds"] == pytest.approx(1.0, abs=1e-3)
    kind, _, text = body["audio_url"].partition(",")
    assert kind == "data:audio/ogg;base64"
    audio = base64.b64decode(text, validate=True)
    assert len(audio) == body["file_size_bytes"]
    with av.open(io.BytesIO(audio)) as container:
        stream = container.streams.audio[0]
        assert (container.format.name, stream.codec_context.name) == ("ogg", "opus")
        assert (stream.rate, stream.channels) == (48_000, 1)
    assert probe(io.BytesIO(audio)).seconds == pytest.approx(1.0, abs=0.01)
    assert np.abs(read_take(io.BytesIO(audio))).max() > 1e-3
    assert made.files() == []  # nothing of it stays


def test_what_is_not_there_is_left_out(made: Parts, files: Running) -> None:
    files.answers["/plain.pth"] = fixed(voice(uses_f0=False))
    body = run(made.worker(), {**offer(files), "model_url": files.url("/plain.pth")}, made)
    assert body["result"] == "success"
    assert "tag" not in body and "f0_method" not in body
    assert body["timing_details"]["download_index"] == 0


def test_settings_reach_the_engine(made: Parts, files: Running) -> None:
    data = {**offer(files), "index_url": files.url("/model.index")}
    bodies = [
        run(made.worker(), {**data, **changes}, made)["audio_url"]
        for changes in (
            {},
            {"f0_up_key": 0, "index_rate": 0.75},
            {"f0_up_key": 5},
            {"index_rate": 0},
            {"index_rate": 1},
        )
    ]
    assert bodies[0] == bodies[1]  # the defaults, and the same bytes for the same request
    assert len(set(bodies)) == 4


@pytest.mark.parametrize(
    ("here", "there", "used"),
    [(True, ("fcpe", "rmvpe"), "rmvpe"), (False, ("fcpe", "rmvpe"), "fcpe"), (True, ("fcpe",), "fcpe")],
)
def test_rmvpe_where_it_is_installed(
    tmp_path: Path, files: Running, monkeypatch: pytest.MonkeyPatch, here: bool, there: tuple[str, ...], used: str
) -> None:
    monkeypatch.setenv("ROCKTOP_HOME", str(tmp_path / "home"))
    if here:
        (tmp_path / "home" / "models").mkdir(parents=True)
        (tmp_path / "home" / "models" / lookup("rmvpe").file).write_bytes(b"weights")
    made = parts(tmp_path, *there)
    assert run(made.worker(), offer(files), made)["f0_method"] == used


def test_second_request_downloads_and_loads_nothing(made: Parts, files: Running) -> None:
    data = {**offer(files), "index_url": files.url("/model.index")}
    run(made.worker(), data, made)
    fetched = made.cache.stats().fetched_bytes
    body = run(made.worker(), data, made)
    assert made.cache.stats().fetched_bytes == fetched
    assert made.cache.stats().misses == 3
    assert body["timing_details"]["load_model"] == 0


def test_changed_files_behind_the_same_addresses_are_noticed(made: Parts, files: Running) -> None:
    data = offer(files)
    first = run(made.worker(), data, made)
    files.answers["/model.pth"] = fixed(voice(seed=7, content_dim=256), ETag='"m2"')
    second = run(made.worker(), data, made)
    files.answers["/vocal.wav"] = fixed(wav(1.5), ETag='"v2"')
    third = run(made.worker(), data, made)
    assert first["audio_url"] != second["audio_url"]
    assert third["duration_seconds"] == pytest.approx(1.5, abs=1e-3)


def test_failed_model_does_not_spoil_the_one_before(made: Parts, files: Running) -> None:
    data = offer(files)
    before = run(made.worker(), data, made)
    files.answers["/bad.pth"] = fixed(voice()[:-200])
    bad = run(made.worker(), {**data, "model_url": files.url("/bad.pth")}, made)
    assert bad["result"] == "failure" and bad["message"].startswith("Invalid RVC model file")
    assert run(made.worker(), data, made)["audio_url"] == before["audio_url"]


@pytest.mark.parametrize("kind", ["m4a", "webm", "mp3", "ogg", "stereo"])
def test_containers_that_soundfile_does_not_know(made: Parts, files: Running, tmp_path: Path, kind: str) -> None:
    from rocktop_ray.audio.encode import write_take

    if kind == "stereo":
        body = wav(0.7, channels=2)
    else:
        write_take(tmp_path / f"t.{kind}", np.sin(np.arange(33_600) / 30).astype(np.float32), 48_000, kind)
        body = (tmp_path / f"t.{kind}").read_bytes()
    data = offer(files)
    files.answers["/vocal.wav"] = fixed(body)
    result = run(made.worker(), data, made)
    assert result["result"] == "success", result
    assert result["duration_seconds"] == pytest.approx(0.7, abs=0.05)


def _pickle() -> bytes:
    class Evil:
        def __reduce__(self) -> tuple[Any, ...]:
            return (print, ("pwned",))

    memory = io.BytesIO()
    torch.save({"weight": Evil(), "config": [1]}, memory)
    return memory.getvalue()


FAILURES: dict[str, tuple[dict[str, bytes | None], str, str, str]] = {
    "no model": ({"/model.pth": None}, "Model file not found at URL", "download", "url_not_found"),
    "no vocal": ({"/vocal.wav": None}, "Vocal file not found at URL", "download", "url_not_found"),
    "no index": ({"/model.index": None}, "Index file not found at URL", "download", "url_not_found"),
    "model is a page": ({"/model.pth": b"<html>"}, "Invalid RVC model file", "model_loading", "url_content"),
    "model is another pickle": ({"/model.pth": _pickle()}, "Invalid RVC model file", "model_loading", ""),
    "index is a page": ({"/model.index": b"<html>"}, "Invalid index file", "model_loading", "url_content"),
    "index of another width": ({"/model.index": index(dim=768)}, "Invalid index file", "model_loading", ""),
    "index is cut": ({"/model.index": index()[:-500]}, "Invalid index file", "model_loading", ""),
    "vocal is a page": (
        {"/vocal.wav": b"<html>"},
        "Invalid or unsupported audio format",
        "audio_processing",
        "url_content",
    ),
    "vocal is cut": ({"/vocal.wav": wav()[:-5000]}, "Failed to load audio", "audio_processing", "invalid_audio"),
    "vocal is empty": ({"/vocal.wav": wav(0)}, "Failed to load audio", "audio_processing", "invalid_audio"),
    "vocal is a moment": ({"/vocal.wav": wav(0.01)}, "Failed to load audio", "audio_processing", "invalid_audio"),
}


@pytest.mark.parametrize("case", FAILURES)
def test_failures_say_what_is_wrong(made: Parts, files: Running, case: str, caplog: pytest.LogCaptureFixture) -> None:
    changes, said, stage, code = FAILURES[case]
    data = {**offer(files), "index_url": files.url("/model.index"), "tag": "t"}
    for path, content in changes.items():
        if content is None:
            del files.answers[path]
        else:
            files.answers[path] = fixed(content)
    with caplog.at_level(logging.INFO, "serve_apps.nano"):
        body = run(made.worker(), data, made)
    assert body["message"].startswith(f"{said}: "), body
    assert {**body, "message": ""} == {
        "result": "failure",
        "message": "",
        "request_id": REQUEST_ID,
        "tag": "t",
        "refresh_worker": False,
    }
    error = metadata(caplog)["error"]
    assert error["error_stage"] == stage and error["stack_trace"] is None
    assert error["error_type"] == code or not code
    assert made.files() == []
    for hidden in (str(made.spool.store.root), str(made.cache.root), "/tmp", "job-1"):
        assert hidden not in body["message"]


def metadata(caplog: pytest.LogCaptureFixture) -> dict[str, Any]:
    lines = [record for record in caplog.records if record.getMessage() == "nano request"]
    return json.loads(JsonFormatter().format(lines[-1]))["nano"]


def test_too_long_and_refused_addresses(made: Parts, files: Running) -> None:
    data = offer(files)
    assert run(made.worker(max_seconds=0.5), data, made)["message"].startswith("Audio is too long: ")
    inner = run(made.worker(), {**data, "vocal_url": "http://169.254.169.254/latest/meta-data?token=secret"}, made)
    assert inner["message"].startswith("Invalid URL: ") and "secret" not in inner["message"]
    files.answers["/busy"] = fixed(b"", status="503 Busy")
    busy = run(made.worker(), {**data, "model_url": files.url("/busy?sig=secret")}, made)
    assert busy["message"].startswith("Cannot reach URL of model file: ") and "secret" not in busy["message"]
    files.answers["/private"] = fixed(b"", status="403 Forbidden")
    assert run(made.worker(), {**data, "vocal_url": files.url("/private")}, made)["message"].startswith(
        "Access forbidden to vocal file"
    )


def test_broken_input_is_a_body(made: Parts) -> None:
    body = run(made.worker(), {"vocal_url": 1, "speed": 2, "tag": "kept"}, made)
    assert body["tag"] == "kept" and body["refresh_worker"] is False
    for part in ("vocal_url should be a text", "model_url is a required input", "'speed' is not a valid input option"):
        assert part in body["message"]
    for wrong in (None, [], "x"):
        assert run(made.worker(), wrong, made)["result"] == "failure"


class Failing:
    """Conversions that raise."""

    def __init__(self, error: BaseException) -> None:
        self.error = error

    async def run(self, order: Order) -> AsyncGenerator[Event, None]:
        raise self.error
        yield


@pytest.mark.parametrize(
    ("error", "said", "refresh"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"), "CUDA out of memory: ", True),
        (RuntimeError("CUDA error: an illegal memory access was encountered"), "Tensor operation failed: ", True),
        (RuntimeError("HIP error: device lost"), "Tensor operation failed: ", True),
        (RuntimeError("shape of /srv/secret"), "Unexpected error: RuntimeError", False),
        (MemoryError(), "Unexpected error: MemoryError", False),
        (StageLostError("the stages died"), "Voice conversion failed: ", False),
    ],
)
def test_only_a_broken_worker_is_replaced(
    made: Parts, files: Running, error: Exception, said: str, refresh: bool, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "serve_apps.nano"):
        body = run(made.worker(conversions=Failing(error)), offer(files), made)
    assert body["message"].startswith(said) and body["refresh_worker"] is refresh
    assert "secret" not in body["message"] and "secret" not in json.dumps(metadata(caplog))


def test_out_of_memory_inside_another_error(made: Parts, files: Running) -> None:
    wrapped = RuntimeError("a task failed")
    wrapped.__cause__ = RuntimeError("CUDA out of memory. Tried to allocate")
    assert run(made.worker(conversions=Failing(wrapped)), offer(files), made)["refresh_worker"] is True


def test_patient_callers_try_lost_stages_again(made: Parts, files: Running) -> None:
    worker = made.worker(conversions=Failing(StageLostError("the stages died")))
    with pytest.raises(StageLostError):
        run(worker, offer(files), made, patient=True)
    assert made.files() == []


def test_log_line_holds_the_seeds_metadata_and_no_secret(
    made: Parts, files: Running, caplog: pytest.LogCaptureFixture
) -> None:
    data = {**offer(files), "index_url": files.url("/model.index") + "?X-Amz-Signature=s3cret", "tag": "t" * 5000}
    data["vocal_url"] += "?X-Amz-Signature=s3cret"
    data["model_url"] += "?token=s3cret"
    with caplog.at_level(logging.INFO, "serve_apps.nano"):
        run(made.worker(), data, made, job="runpod-job")
    lines = [record for record in caplog.records if record.getMessage() == "nano request"]
    assert len(lines) == 1
    line = JsonFormatter().format(lines[0])
    assert "\n" not in line and "s3cret" not in line
    found = metadata(caplog)
    assert (found["request_id"], found["job_id"], found["success"]) == (REQUEST_ID, "runpod-job", True)
    assert found["received_at"] <= found["started_at"] <= found["completed_at"]
    source = found["input_audio"]
    assert (source["sample_rate"], source["channels"], source["file_size_bytes"]) == (44_100, 1, len(wav()))
    assert source["duration_seconds"] == pytest.approx(1.0, abs=1e-3)
    model = found["model_info"]
    assert (model["version"], model["cached"], model["target_sample_rate"], len(model["hash"])) == (
        "v1",
        False,
        8000,
        64,
    )
    assert found["resources"]["vocal_cache_hit"] is False and found["error"] is None
    assert found["timing"]["total_seconds"] > 0 and len(found["tag"]) == 256


def test_silence_makes_valid_json(made: Parts, files: Running, caplog: pytest.LogCaptureFixture) -> None:
    data = offer(files)
    memory = io.BytesIO()
    soundfile.write(memory, np.zeros(24_000), 48_000, format="WAV")
    files.answers["/vocal.wav"] = fixed(memory.getvalue())
    with caplog.at_level(logging.INFO, "serve_apps.nano"):
        assert run(made.worker(), data, made)["result"] == "success"
    json.loads(json.dumps(metadata(caplog), allow_nan=False))


def test_cancelled_requests_leave_nothing(made: Parts, files: Running) -> None:
    data = offer(files)
    files.answers["/vocal.wav"] = lambda link, request: link.sendall(reply(wav(120)))

    carry_out, begun, go_on = made.conversions.carry_out, threading.Event(), threading.Event()

    def held_up(*order: Any) -> Any:
        begun.set()
        assert go_on.wait(60)
        return carry_out(*order)

    made.conversions.carry_out = held_up  # type: ignore[method-assign]

    async def work() -> None:
        task = asyncio.create_task(made.worker().run(data, "job-1", lambda _: None, request_id=REQUEST_ID))
        assert await asyncio.to_thread(begun.wait, 60)
        assert made.files() and not task.done()
        task.cancel()
        go_on.set()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(work())
    assert made.files() == []
