"""The worker on RunPod: our handler under RunPod's own SDK, as processes, with the bundle as the foreign voice."""

from __future__ import annotations

import asyncio
import base64
import io
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from free_ports import free_port
from http_server import Running, fixed, serving
from nano_parts import wav

from rocktop_ray.audio.decode import probe
from rocktop_ray.errors import ModelMissingError, SettingsError
from rocktop_ray.store.fetch import find
from rocktop_ray.voices.open import bundle_folder
from serve_apps.config import ServeConfig
from serve_apps.nano import handler

RUN = (sys.executable, "-m", "serve_apps.nano.handler")


@pytest.fixture(scope="module")
def files() -> Iterator[Running]:
    try:
        find("whisper-base-encoder"), find("fcpe")
    except ModelMissingError as error:
        pytest.skip(error.message)
    with serving({}) as running:
        running.answers["/vocal.wav"] = fixed(wav(0.6))
        running.answers["/voice.safetensors"] = fixed((bundle_folder() / "bundle.safetensors").read_bytes())
        yield running


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    config = {"fetch": {"trusted": ["127.0.0.1"], "cache": str(tmp_path / "cache")}, "threads": 1}
    place = tmp_path / "worker.yaml"
    place.write_text(json.dumps({**config, "store": str(tmp_path / "spool")}))  # JSON is YAML
    plain = {name: value for name, value in os.environ.items() if not name.startswith(("S3_", "RUNPOD_"))}
    return {**plain, "ROCKTOP_CONFIG": str(place), "NO_PROXY": "127.0.0.1"}


def asked(files: Running) -> dict[str, Any]:
    return {"vocal_url": files.url("/vocal.wav"), "model_url": files.url("/voice.safetensors"), "tag": "t"}


def check(output: dict[str, Any]) -> None:
    assert output["result"] == "success", output
    assert (output["tag"], output["sample_rate"]) == ("t", 48_000) and output["model_version"]
    audio = base64.b64decode(output["audio_url"].removeprefix("data:audio/ogg;base64,"), validate=True)
    assert probe(io.BytesIO(audio)).seconds == pytest.approx(0.6, abs=0.02)


def test_job_from_the_command_line(files: Running, environment: dict[str, str], tmp_path: Path) -> None:
    pytest.importorskip("runpod")
    job = json.dumps({"input": asked(files)})
    done = subprocess.run([*RUN, "--test_input", job], env=environment, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "completed successfully" in done.stdout
    told = [json.loads(line) for line in done.stderr.splitlines() if '"nano request"' in line]
    assert len(told) == 1 and told[0]["nano"]["job_id"] == "local_test" and told[0]["nano"]["success"] is True
    assert not [path for path in (tmp_path / "spool").rglob("*") if path.is_file()]


def test_worker_api_of_the_sdk(files: Running, environment: dict[str, str]) -> None:
    pytest.importorskip("runpod")
    port = free_port()
    command = [*RUN, "--rp_serve_api", "--rp_api_host", "127.0.0.1", "--rp_api_port", str(port)]
    with subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=120, trust_env=False) as client:
                end = time.monotonic() + 120
                while True:
                    try:
                        client.get("/openapi.json")
                        break
                    except httpx.TransportError:
                        assert process.poll() is None and time.monotonic() < end
                        time.sleep(0.2)
                state = client.post("/runsync", json={"input": asked(files)}).json()
                assert state["status"] == "COMPLETED"
                check(state["output"])
                again = client.post("/runsync", json={"input": asked(files)}).json()["output"]
                assert again["timing_details"]["load_model"] == 0
                wrong = client.post("/runsync", json={"input": {"vocal_url": 5}}).json()
                assert wrong["status"] == "COMPLETED" and wrong["output"]["result"] == "failure"
        finally:
            process.kill()


def test_without_the_sdk_it_says_so(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setitem(sys.modules, "runpod", None)
    monkeypatch.setenv("RUNPOD_LOG_LEVEL", "INFO")
    assert handler.main() == 69
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "pip install" in said


def test_s3_that_is_half_set_up_is_told_at_the_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("S3_ENDPOINT_URL", "https://s3.example.com")
    monkeypatch.delenv("S3_BUCKET_NAME", raising=False)
    with pytest.raises(SettingsError, match="S3_BUCKET_NAME"):
        handler.Handler.build(ServeConfig(store=str(tmp_path)))


@pytest.mark.parametrize("text", ["unknown: 1", "fetch: {seconds: -1}", "[", "- 1"])
def test_wrong_configuration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    (tmp_path / "c.yaml").write_text(text)
    monkeypatch.setenv("ROCKTOP_CONFIG", str(tmp_path / "c.yaml"))
    with pytest.raises(SettingsError, match="not a configuration"):
        handler._config()


def test_jobs_of_any_shape_are_answered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ROCKTOP_HOME", str(tmp_path))
    for name in ("S3_ENDPOINT_URL", "S3_ACCESS_KEY", "S3_SECRET_KEY", "S3_BUCKET_NAME"):
        monkeypatch.delenv(name, raising=False)
    made = handler.Handler.build(ServeConfig(device="cpu", threads=1))
    for job in ({}, {"id": "../../x", "input": None}, {"id": 5, "input": {"vocal_url": "x"}}):
        body = asyncio.run(made.run(job))
        assert body["result"] == "failure" and body["refresh_worker"] is False
