"""TorchServe's inference API."""

from __future__ import annotations

import io
import time
from collections.abc import Iterator

import httpx
import pytest
from nano_parts import voice, wav
from runpod_service import Running, runpod_service

from rocktop_ray.audio.decode import probe
from rocktop_ray.errors import StorageUnavailableError


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp("torchserve")
    (folder / "anna.pth").write_bytes(voice())
    with runpod_service(folder) as running:
        running.made.shelf.import_(folder / "anna.pth", name="anna")
        yield running


@pytest.fixture
def client(service: Running) -> Iterator[httpx.Client]:
    with service.client() as client:
        yield client


def nothing_left(service: Running) -> bool:
    """A client has its answer a moment before its files are gone."""
    end = time.monotonic() + 60
    while (left := service.made.files()) and time.monotonic() < end:
        time.sleep(0.02)
    return not left


def test_ping(client: httpx.Client, service: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    answer = client.get("/ping")
    assert answer.status_code == 200 and answer.json() == {"status": "Healthy"}


def test_ping_before_it_can_work(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    with runpod_service(tmp_path_factory.mktemp("ping")) as running, running.client() as client:

        def refuse(*_: object, **__: object) -> None:
            raise StorageUnavailableError("the store is down")

        monkeypatch.setattr(running.made.spool.store, "write", refuse)
        answer = client.get("/ping")
        assert answer.status_code == 503 and answer.json() == {"status": "Unhealthy"}
        assert answer.headers["retry-after"]


@pytest.mark.parametrize("how", ["raw", "form"])
def test_predictions(client: httpx.Client, service: Running, how: str) -> None:
    sent = {"content": wav()} if how == "raw" else {"files": {"data": ("take.wav", wav())}}
    answer = client.post("/predictions/anna", params={"key": 3, "format": "ogg"}, **sent)
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "audio/ogg"
    assert probe(io.BytesIO(answer.content)).seconds == pytest.approx(1.0, abs=0.02)
    again = client.post("/predictions/anna", headers={"X-Rocktop-Key": "3", "X-Rocktop-Format": "ogg"}, content=wav())
    assert again.content == answer.content
    assert nothing_left(service)


@pytest.mark.parametrize(
    ("path", "sent", "status", "code"),
    [
        ("/predictions/none", {"content": wav(0.1)}, 404, "voice_not_found"),
        ("/predictions/anna", {"content": b""}, 422, "invalid_audio"),
        ("/predictions/anna", {"content": b"text"}, 422, "unsupported_format"),
        ("/predictions/anna?key=99", {"content": wav(0.1)}, 422, "invalid_settings"),
        ("/predictions/anna?speed=2", {"content": wav(0.1)}, 422, "invalid_settings"),
        ("/predictions/anna", {"files": {"other": ("take.wav", wav(0.1))}}, 422, "invalid_settings"),
        ("/predictions/anna", {"files": {"data": ("take.wav", b"")}}, 422, "invalid_audio"),
    ],
)
def test_refusals(
    client: httpx.Client, service: Running, path: str, sent: dict[str, object], status: int, code: str
) -> None:
    answer = client.post(path, **sent)  # type: ignore[arg-type]
    assert (answer.status_code, answer.json()["code"]) == (status, code), answer.text
    assert "/" not in answer.json()["detail"].replace("/v1", "")
    assert nothing_left(service)
