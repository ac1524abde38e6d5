"""/v1/jobs and /v1/batches over real HTTP. A mill stands for the stages; ``test_api_convert`` has the real ones."""

from __future__ import annotations

import base64
import io
import json
import threading
import time
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import hypothesis.strategies as st
import numpy as np
import pytest
from gateway_server import Gateway, eventually, serving_gateway
from http_server import fixed, serving
from hypothesis import given, settings
from job_stand_ins import SIZE, Mill
from serve_cluster import small_home, take_bytes

from serve_apps.gateway.archive import safe_names
from serve_apps.gateway.key_ring import KeyFile
from serve_apps.gateway.objects import disposition
from serve_apps.spool import Spool

TAKE = take_bytes(0.2)
FINAL = ("done", "failed", "cancelled")


@pytest.fixture(scope="module")
def voices(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_home(tmp_path_factory.mktemp("jobs") / "home", ("anna",))


@contextmanager
def milling(folder: Path, voices: Path, pause: float = 0.0, **sections: Any) -> Iterator[Gateway]:
    library = {"library": str(voices / "voices"), "preload": []}
    mill = Mill(Spool.open(str(folder / "store")), 5, pause)
    with serving_gateway(folder, conversions=mill, voices=library, fetch={"trusted": ["127.0.0.1"]}, **sections) as on:
        yield on


@pytest.fixture(scope="module")
def mill(voices: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    with milling(tmp_path_factory.mktemp("mill"), voices) as running:
        yield running


def send(client: httpx.Client, take: bytes = TAKE, name: str = "verse.wav", **fields: str) -> dict[str, Any]:
    answer = client.post("/v1/jobs", files={"take": (name, take)}, data={"voice": "anna", **fields})
    assert answer.status_code == 202, answer.text
    assert answer.headers["location"] == f"/v1/jobs/{answer.json()['id']}"
    return answer.json()


def ended(client: httpx.Client, id: str, seconds: float = 60) -> dict[str, Any]:
    end = time.monotonic() + seconds
    while (job := client.get(f"/v1/jobs/{id}").json())["status"] not in FINAL:
        assert time.monotonic() < end, job
        time.sleep(0.02)
    return job


def problem(answer: httpx.Response, status: int, code: str) -> dict[str, Any]:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["code"] == code
    return answer.json()


def stream(client: httpx.Client, id: str) -> list[tuple[str, dict[str, Any]]]:
    found = []
    with client.stream("GET", f"/v1/jobs/{id}/events") as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        kind = ""
        for line in answer.iter_lines():
            if line.startswith("event: "):
                kind = line[7:]
            elif line.startswith("data: "):
                found.append((kind, json.loads(line[6:])))
    return found


def test_a_job_from_its_take_to_its_result(mill: Gateway) -> None:
    with mill.client() as client:
        made = send(client, key="-2.5", format="ogg")
        assert made["status"] in ("queued", "running") and made["result"] is None and made["error"] is None
        assert (made["voice"], made["name"], made["batch"]) == ("anna", "verse.wav", None)
        assert made["settings"]["key"] == -2.5 and made["settings"]["index_rate"] == 0.75
        assert made["output"] == {"format": "ogg", "rate": 48000, "bitrate": 128000}
        home = f"/v1/jobs/{made['id']}"
        assert made["links"] == {"self": home, **{n: f"{home}/{n}" for n in ("events", "result", "source", "melody")}}
        seen = stream(client, made["id"])
        assert [kind for kind, _ in seen][-1] == "done" and {kind for kind, _ in seen[:-1]} <= {"progress"}
        job = ended(client, made["id"])
        assert seen[-1][1] == job
        assert job["progress"] == {
            **{"seconds_done": 0.5, "seconds_total": 0.5, "stage": None, "fraction": 1.0, "queue_position": None}
        }
        assert job["created"] <= job["started"] <= job["finished"] and job["created"].endswith("Z")
        assert job["result"] == {
            **{"url": f"{home}/result", "seconds": 0.5, "bytes": SIZE, "media_type": "audio/ogg", "key": -2.5},
            **{"gain_db": 0.0, "peak_dbfs": None, "real_time_factor": 0.5, "stages": {"vocoder": 0.01}},
            **{"pitch": "fcpe", "voice": {"family": "singer"}},
        }
        result = client.get(f"{home}/result")
        assert len(result.content) == SIZE and result.headers["content-type"] == "audio/ogg"
        assert result.headers["content-disposition"] == 'attachment; filename="verse.anna.ogg"'
        source = client.get(f"{home}/source")
        assert source.content == TAKE and source.headers["content-type"] == "audio/wav"
        melody = client.get(f"{home}/melody").json()
        assert melody["rate"] == 100 and len(melody["source"]) == len(melody["result"]) == 50
        assert np.allclose(np.array(melody["result"]), 2 * np.array(melody["source"]), atol=0.02)
        assert [kind for kind, _ in stream(client, made["id"])] == ["done"]
        removed = client.delete(home)
        assert removed.status_code == 200 and removed.json()["status"] == "done"
        for path in ("", "/result", "/source", "/melody", "/events"):
            problem(client.get(home + path), 404, "job_not_found")
        assert not [key for key in mill.spooled() if made["id"] in key]


def test_parts_of_a_result(mill: Gateway) -> None:
    with mill.client() as client:
        url = ended(client, send(client)["id"])["result"]["url"]
        whole = client.get(url)
        etag, data = whole.headers["etag"], whole.content
        assert whole.headers["accept-ranges"] == "bytes" and whole.headers["content-length"] == str(SIZE)

        def ask(**headers: str) -> httpx.Response:
            return client.get(url, headers={name.replace("_", "-"): value for name, value in headers.items()})

        for text, start, stop in (
            ("bytes=0-0", 0, 1),
            ("bytes=100-199", 100, 200),
            ("bytes=99990-", 99_990, SIZE),
            ("bytes=-10", SIZE - 10, SIZE),
            ("bytes=5-999999999", 5, SIZE),
            ("bytes=-999999999", 0, SIZE),
            ("Bytes=7-8", 7, 9),
        ):
            part = ask(range=text)
            assert part.status_code == 206 and part.content == data[start:stop], text
            assert part.headers["content-range"] == f"bytes {start}-{stop - 1}/{SIZE}"
        for text in (f"bytes={SIZE}-", "bytes=-0", f"bytes={SIZE}-{SIZE + 5}"):
            refused = ask(range=text)
            problem(refused, 416, "range_not_satisfiable")
            assert refused.headers["content-range"] == f"bytes */{SIZE}"
        for text in ("bytes=9-3", "bytes=-", "bytes=a-b", "chunks=1-2", "bytes=0-1,5-6", "bytes=" + "9" * 99 + "-"):
            assert ask(range=text).content == data, text
        assert ask(if_none_match=etag).status_code == 304
        assert ask(if_none_match=f'"x", W/{etag}').status_code == 304
        assert ask(if_none_match='"x"').status_code == 200
        assert ask(range="bytes=0-9", if_range=etag).status_code == 206
        assert ask(range="bytes=0-9", if_range='"x"').content == data
        head = client.head(url, headers={"range": "bytes=0-9"})
        assert head.status_code == 206 and head.headers["content-length"] == "10" and not head.content
        assert client.head(url).headers["content-length"] == str(SIZE)


def test_failures_and_what_has_no_result(mill: Gateway) -> None:
    with mill.client() as client:
        job = ended(client, send(client, b"bad sound", "käse.wav")["id"])
        assert job["status"] == "failed" and job["result"] is None
        error = job["error"]
        assert (error["status"], error["code"], error["stage"]) == (422, "invalid_audio", "audio")
        assert "käse.wav" in error["detail"] and mill.config.store_place not in json.dumps(job)
        assert problem(client.get(job["links"]["result"]), 409, "job_state")["retryable"] is False
        problem(client.get(job["links"]["melody"]), 409, "job_state")
        assert client.get(job["links"]["source"]).content == b"bad sound"
        assert stream(client, job["id"]) == [("failed", job)]
        problem(client.get("/v1/jobs/nobody"), 404, "job_not_found")
        problem(client.get("/v1/jobs?after=nobody"), 404, "job_not_found")
        problem(client.get("/v1/jobs?limit=0"), 422, "invalid_settings")
        problem(client.post("/v1/jobs", files={"take": TAKE}, data={"voice": "nobody"}), 404, "voice_not_found")
        problem(client.post("/v1/jobs", files={"take": TAKE}, data={"stream": "true"}), 422, "invalid_settings")
        problem(client.post("/v1/jobs", files={"take": TAKE}, data={"key": "99"}), 422, "invalid_settings")
        before = mill.spooled()
        problem(client.post("/v1/jobs", files={"take": TAKE}, data={"voice": "nobody"}), 404, "voice_not_found")
        eventually(lambda: mill.spooled() == before)


def test_takes_behind_addresses(mill: Gateway) -> None:
    with mill.client() as client, serving({"/a/chorus.wav": fixed(TAKE), "/page": fixed(b"<html>")}) as web:
        made = client.post("/v1/jobs", json={"take_url": web.url("/a/chorus.wav?sig=secret"), "voice": "anna"}).json()
        job = ended(client, made["id"])
        assert job["status"] == "done" and job["name"] == "chorus.wav" and "secret" not in json.dumps(job)
        assert client.get(job["links"]["source"]).content == TAKE
        page = client.post("/v1/jobs", json={"take_url": web.url("/page"), "voice": "anna"}).json()
        failed = ended(client, page["id"])
        assert failed["error"]["code"] == "url_content"
        problem(client.get(failed["links"]["source"]), 409, "job_state")
        inline = "data:audio/wav;base64," + base64.b64encode(TAKE).decode()
        job = ended(client, client.post("/v1/jobs", json={"take_url": inline, "voice": "anna"}).json()["id"])
        assert job["status"] == "done" and client.get(job["links"]["source"]).content == TAKE
        state = mill.services.spool.store.read(f"jobs/{job['id']}.json")
        assert len(state) < 5000  # the take lies in the spool, not in the job
        gone = client.post("/v1/jobs", json={"take_url": "http://10.0.0.1/x.wav", "voice": "anna"})
        problem(gone, 422, "url_refused")


def test_batches(mill: Gateway, voices: Path, tmp_path: Path) -> None:
    names = ["verse.wav", "verse.wav", "VERSE.mp3", "../../etc/passwd", "con.wav", "häß?lich.wav"]
    with mill.client() as client:
        parts = [("take", (name, TAKE + bytes([n]))) for n, name in enumerate(names)]
        parts.append(("take", ("bad.wav", b"bad")))
        answer = client.post("/v1/batches", files=parts, data={"voice": "anna", "format": "wav16"})
        assert answer.status_code == 202, answer.text
        batch = answer.json()
        assert answer.headers["location"] == f"/v1/batches/{batch['id']}" == batch["links"]["self"]
        assert len(batch["jobs"]) == 7 and sum(batch["counts"].values()) == 7
        assert {job["batch"] for job in batch["jobs"]} == {batch["id"]}
        for job in batch["jobs"]:
            ended(client, job["id"])
        state = client.get(f"/v1/batches/{batch['id']}").json()
        assert [job["id"] for job in state["jobs"]] == [job["id"] for job in batch["jobs"]]
        assert state["counts"] == {"queued": 0, "running": 0, "done": 6, "failed": 1, "cancelled": 0}
        packed = client.get(f"/v1/batches/{batch['id']}/archive")
        assert packed.headers["content-type"] == "application/zip"
        with zipfile.ZipFile(io.BytesIO(packed.content)) as archive:
            assert archive.testzip() is None
            found = archive.namelist()
            assert found == [
                *("verse.anna.wav", "verse.anna (2).wav", "VERSE.anna (3).wav", "passwd.anna.wav"),
                *("_con.anna.wav", "häß_lich.anna.wav"),
            ]
            assert {entry.compress_type for entry in archive.infolist()} == {zipfile.ZIP_STORED}
            for job, name in zip(state["jobs"], found, strict=False):
                assert archive.read(name) == client.get(job["links"]["result"]).content
        problem(client.get("/v1/batches/nobody"), 404, "job_not_found")
        problem(client.get("/v1/batches/nobody/archive"), 404, "job_not_found")
        problem(client.post("/v1/batches", json={"take_urls": [], "voice": "anna"}), 422, "invalid_settings")
    with milling(tmp_path, voices, 60.0, limits={"running_jobs": 1}) as slow, slow.client() as client:
        parts = [("take", (f"{n}.wav", TAKE)) for n in range(5)]
        batch = client.post("/v1/batches", files=parts, data={"voice": "anna"}).json()
        problem(client.get(f"{batch['links']['self']}/archive"), 409, "job_state")
        stopped = client.delete(batch["links"]["self"]).json()
        assert stopped["counts"]["cancelled"] == 5


def test_pages_of_jobs(voices: Path, tmp_path: Path) -> None:
    with milling(tmp_path, voices) as mill, mill.client() as client:
        ids = [send(client, name=f"{n}.wav")["id"] for n in range(5)][::-1]
        first = client.get("/v1/jobs?limit=2").json()
        assert [job["id"] for job in first["jobs"]] == ids[:2] and first["next"] == ids[1]
        rest = client.get(f"/v1/jobs?limit=3&after={first['next']}").json()
        assert [job["id"] for job in rest["jobs"]] == ids[2:] and rest["next"] is None


def test_a_full_queue_and_a_cancelled_job(voices: Path, tmp_path: Path) -> None:
    with milling(tmp_path, voices, 60.0, limits={"jobs": 2, "running_jobs": 1}) as mill, mill.client() as client:
        first, second = send(client), send(client)
        full = client.post("/v1/jobs", files={"take": TAKE}, data={"voice": "anna"})
        assert problem(full, 429, "queue_full")["retryable"] and int(full.headers["retry-after"]) >= 1
        parts = [("take", ("a.wav", TAKE)), ("take", ("b.wav", TAKE))]
        problem(client.post("/v1/batches", files=parts, data={"voice": "anna"}), 429, "queue_full")
        eventually(lambda: len([key for key in mill.spooled() if key.startswith("takes/")]) == 2)
        assert client.get(f"/v1/jobs/{second['id']}").json()["progress"]["queue_position"] == 0
        assert problem(client.get(second["links"]["result"]), 409, "job_state")["retryable"] is True
        mill.services.conversions.pause = 0.0  # type: ignore[attr-defined]  # of the second; the first has begun its own
        cancelled = client.delete(f"/v1/jobs/{first['id']}").json()
        assert cancelled["status"] == "cancelled" and cancelled["error"] is None
        assert ended(client, second["id"])["status"] == "done"


def test_a_client_that_leaves_the_events_leaves_nothing(voices: Path, tmp_path: Path) -> None:
    with milling(tmp_path, voices, 60.0) as mill, mill.client() as client:
        made = send(client)
        record = mill.services.jobs._records[made["id"]]  # type: ignore[attr-defined]
        for _ in range(3):
            with client.stream("GET", made["links"]["events"]) as answer:
                lines = answer.iter_lines()
                assert next(lines) == "retry: 2000"
                eventually(lambda: len(record.watchers) == 1)
            eventually(lambda: not record.watchers)
        client.delete(made["links"]["self"])


def test_forty_follow_one_job(voices: Path, tmp_path: Path) -> None:
    with milling(tmp_path, voices, 0.3) as mill, mill.client() as client:
        made = send(client)
        ends: list[str] = []

        def follow() -> None:
            with mill.client() as own:
                ends.append(stream(own, made["id"])[-1][0])

        threads = [threading.Thread(target=follow) for _ in range(40)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(120)
        assert ends == ["done"] * 40


def test_jobs_of_one_key_are_nobody_elses(voices: Path, tmp_path: Path) -> None:
    keys = KeyFile(tmp_path / "keys.json")
    secrets = {name: keys.add(name) for name in ("ada", "bob")}
    with milling(tmp_path, voices, security={"keys": str(tmp_path / "keys.json")}) as mill:
        clients = {name: mill.client(headers={"Authorization": f"Bearer {secret}"}) for name, secret in secrets.items()}
        ada, bob = clients["ada"], clients["bob"]
        made = send(ada)
        batch = ada.post("/v1/batches", files=[("take", ("a.wav", TAKE))], data={"voice": "anna"}).json()
        ended(ada, made["id"])
        for path in ("", "/events", "/result", "/source", "/melody"):
            problem(bob.get(f"/v1/jobs/{made['id']}{path}"), 404, "job_not_found")
        problem(bob.delete(f"/v1/jobs/{made['id']}"), 404, "job_not_found")
        problem(bob.get(f"/v1/batches/{batch['id']}"), 404, "job_not_found")
        problem(bob.delete(f"/v1/batches/{batch['id']}"), 404, "job_not_found")
        problem(bob.get(f"/v1/batches/{batch['id']}/archive"), 404, "job_not_found")
        problem(bob.get(f"/v1/jobs?after={made['id']}"), 404, "job_not_found")
        assert bob.get("/v1/jobs").json()["jobs"] == [] and len(ada.get("/v1/jobs").json()["jobs"]) == 2
        with mill.client() as stranger:
            assert stranger.get("/v1/jobs").status_code == 401
        for client in clients.values():
            client.close()


@given(st.lists(st.text(max_size=40), max_size=12))
@settings(max_examples=100)
def test_names_in_archives_are_safe_and_unique(names: list[str]) -> None:
    made = safe_names(names, [".flac"] * len(names))
    assert len({name.lower() for name in made}) == len(names)
    for name in made:
        assert name.endswith(".flac") and not set(name) & set('<>:"/\\|?*\0\n\r') and not name.startswith((" ", "."))
        assert len(name.encode()) <= 140 and name.isprintable()


@given(st.text(max_size=60))
@settings(max_examples=100)
def test_names_in_headers_are_safe(name: str) -> None:
    header = disposition(name.encode(errors="ignore").decode())
    assert header.isascii() and header.isprintable() and header.count('"') == 2
