"""API keys: the file, the command, the limits, and what the gateway does with them."""

from __future__ import annotations

import json
import stat
import threading
from pathlib import Path

import pytest
from gateway_server import eventually, gateway_fixture, home_fixture, serving_gateway  # noqa: F401
from serve_cluster import PITCH, take_bytes
from typer.testing import CliRunner

from rocktop_ray.errors import SettingsError
from serve_apps.gateway.budgets import Guesses, KeyBudgets, TokenBucket
from serve_apps.gateway.key_ring import Key, KeyFile, KeyRing
from serve_apps.gateway.keys import keys_app
from serve_apps.gateway.refusals import NotReadyError, RateLimitedError


def test_only_hashes_are_kept(tmp_path: Path) -> None:
    keys = KeyFile(tmp_path / "inner" / "keys.json")
    secret = keys.add("alice", per_minute=5, at_once=2)
    text = keys.path.read_text()
    assert secret not in text and secret.removeprefix("rk_") not in text
    assert stat.S_IMODE(keys.path.stat().st_mode) == 0o600
    found = KeyRing(keys.path).find(secret)
    assert found and (found.name, found.per_minute, found.at_once, found.admin) == ("alice", 5, 2, False)
    assert KeyRing(keys.path).find(secret + "x") is None
    assert KeyRing(keys.path).find("") is None
    assert KeyRing(keys.path).find(found.sha256) is None, "the hash itself must not open"


def test_names_and_limits_are_checked(tmp_path: Path) -> None:
    keys = KeyFile(tmp_path / "keys.json")
    keys.add("alice")
    for name, limits in (("alice", {}), ("", {}), ("a b", {}), ("x" * 65, {}), ("bob", {"per_minute": 0})):
        with pytest.raises(SettingsError):
            keys.add(name, **limits)
    with pytest.raises(SettingsError, match="no key named"):
        keys.revoke("nobody")


def test_changes_are_noticed_and_a_damaged_file_lets_nobody_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("serve_apps.gateway.key_ring.LOOK_AGAIN", 0.0)
    keys = KeyFile(tmp_path / "keys.json")
    alice = keys.add("alice")
    ring = KeyRing(keys.path)
    assert ring.find(alice)
    bob = keys.add("bob")
    assert ring.find(bob)
    keys.revoke("alice")
    assert ring.find(alice) is None and ring.find(bob)
    good = keys.path.read_text()
    for bad in ("{", "[]", '{"version": 1, "keys": [{"name": 3}]}', '{"version": 2, "keys": []}'):
        keys.path.write_text(bad)
        with pytest.raises(NotReadyError):
            ring.find(bob)
    keys.path.write_text(good)
    assert ring.find(bob)
    keys.path.unlink()
    with pytest.raises(NotReadyError):
        ring.find(bob)


def test_two_commands_at_once_lose_nothing(tmp_path: Path) -> None:
    threads = [threading.Thread(target=KeyFile(tmp_path / "k").add, args=(f"name{n}",)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(KeyFile(tmp_path / "k").read()) == 8


def test_the_command(tmp_path: Path) -> None:
    run, file = CliRunner(), str(tmp_path / "keys.json")
    made = run.invoke(keys_app, ["add", "alice", "--per-minute", "9", "--admin", "--file", file, "--json"])
    assert made.exit_code == 0, made.output
    secret = json.loads(made.stdout)["key"]
    listed = run.invoke(keys_app, ["list", "--file", file])
    assert "alice" in listed.stdout and "admin" in listed.stdout and "9/min" in listed.stdout
    assert secret not in listed.stdout
    assert run.invoke(keys_app, ["revoke", "alice", "--file", file]).exit_code == 0
    assert json.loads(run.invoke(keys_app, ["list", "--file", file, "--json"]).stdout) == []


def test_tokens_grow_back() -> None:
    now = 0.0
    bucket = TokenBucket(60, clock=lambda: now)
    assert [bucket.take() for _ in range(60)] == [0.0] * 60
    assert bucket.take() == pytest.approx(1.0)
    now = 1.0
    assert bucket.take() == 0.0
    assert bucket.take() > 0
    now = 1e9
    assert [bucket.take() for _ in range(61)].count(0.0) == 60, "no more than a minute's worth is saved up"


def test_places_are_given_back() -> None:
    budgets, key = KeyBudgets(), Key("a", "0" * 64, "", at_once=1)
    with budgets.request(key), pytest.raises(RateLimitedError), budgets.request(key):
        pass
    with budgets.request(key):
        pass


def test_guessing_is_throttled_per_address() -> None:
    now = 0.0
    guesses = Guesses(3, clock=lambda: now)
    for _ in range(3):
        guesses.wrong("10.0.0.1")
    with pytest.raises(RateLimitedError) as refused:
        guesses.wrong("10.0.0.1")
    assert refused.value.retry_after == pytest.approx(20)
    guesses.wrong("10.0.0.2")
    now = 21.0
    guesses.wrong("10.0.0.1")


def bearer(secret: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {secret}"}


def test_the_gateway_with_keys(home: Path) -> None:
    keys = KeyFile(home / "keys.json")
    alice, boss = keys.add("alice"), keys.add("boss", admin=True)
    with serving_gateway(home, security={"keys": str(keys.path)}) as own, own.client() as client:
        for path in ("/docs", "/docs/start.js", "/openapi.json", "/healthz", "/readyz"):
            assert client.get(path).status_code == 200, path
        assert client.get("/openapi.json").json()["components"]["securitySchemes"]["bearer"]["scheme"] == "bearer"
        for path in ("/v1/voices", "/v1/jobs", "/metrics", "/nothing", "/docs/../v1/voices", "//v1/voices"):
            refused = client.get(path)
            assert refused.status_code == 401, (path, refused.text)
            assert refused.json()["code"] == "unauthenticated"
            assert refused.headers["www-authenticate"].startswith("Bearer")
        assert client.get("/v1/voices", headers=bearer(alice)).status_code == 200
        assert client.get("/v1/voices", headers={"X-API-Key": alice}).status_code == 200
        assert client.get("/metrics", headers=bearer(alice)).status_code == 200
        assert client.get(f"/v1/voices?key={alice}").status_code == 401, "a key in an address ends up in logs"
        for wrong in ("Basic abc", "Bearer", "Bearer  x", f"Bearer {alice}x", "Bearer \u00e9"):
            headers = {"Authorization": wrong.encode()}
            assert client.get("/v1/voices", headers=headers).status_code == 401
        voice = {"voice": ("v.pth", (home / "home" / "sources" / "anna.pth").read_bytes())}
        refused = client.post("/v1/voices", files=voice, data={"name": "carla"}, headers=bearer(alice))
        assert (refused.status_code, refused.json()["code"]) == (403, "forbidden")
        assert client.delete("/v1/voices/anna", headers=bearer(alice)).status_code == 403
        made = client.post("/v1/voices", files=voice, data={"name": "carla"}, headers=bearer(boss))
        assert made.status_code == 201, made.text
        assert client.delete("/v1/voices/carla", headers=bearer(boss)).status_code == 204


def test_jobs_belong_to_their_key(home: Path) -> None:
    keys = KeyFile(home / "keys.json")
    alice, bob = keys.add("alice"), keys.add("bob")
    with serving_gateway(home, security={"keys": str(keys.path)}) as own, own.client() as client:
        files, fields = {"take": ("a.wav", take_bytes())}, {"voice": "anna", "pitch": PITCH, "reply": "json"}
        job = client.post("/v1/convert", files=files, data=fields, headers=bearer(alice)).json()
        assert client.get(job["result"]["url"], headers=bearer(alice)).status_code == 200
        assert client.get(job["result"]["url"], headers=bearer(bob)).status_code == 404
        assert client.get("/v1/jobs", headers=bearer(bob)).json()["jobs"] == []


def test_limits_of_a_key(home: Path) -> None:
    keys = KeyFile(home / "keys.json")
    few, one = keys.add("few", per_minute=3), keys.add("one", at_once=1)
    with serving_gateway(home, security={"keys": str(keys.path)}) as own, own.client() as client:
        answers = [client.get("/v1/formats", headers=bearer(few)) for _ in range(4)]
        assert [answer.status_code for answer in answers] == [200, 200, 200, 429]
        assert answers[-1].json()["code"] == "rate_limited" and 1 <= int(answers[-1].headers["retry-after"]) <= 20
        assert client.get("/v1/formats", headers=bearer(one)).status_code == 200, "another key is not slowed down"
        statuses: list[int] = []
        take = take_bytes(20.0)  # made before, and long: the three are there at once

        def ask() -> None:
            files, fields = {"take": ("a.wav", take)}, {"voice": "anna", "pitch": PITCH}
            with own.client() as mine:
                statuses.append(mine.post("/v1/convert", files=files, data=fields, headers=bearer(one)).status_code)

        threads = [threading.Thread(target=ask) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(statuses)[0] == 200 and 429 in statuses
        eventually(lambda: client.get("/v1/formats", headers=bearer(one)).status_code == 200)


def test_wrong_keys_are_throttled_and_right_ones_are_not(home: Path) -> None:
    keys = KeyFile(home / "keys.json")
    alice = keys.add("alice")
    with serving_gateway(home, security={"keys": str(keys.path)}) as own, own.client() as client:
        statuses = [client.get("/v1/voices", headers=bearer(f"rk_{n}")).status_code for n in range(14)]
        assert statuses[:10] == [401] * 10 and statuses[-1] == 429
        assert client.get("/v1/voices", headers=bearer(alice)).status_code == 200


def test_keys_are_not_logged(home: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG")
    keys = KeyFile(home / "keys.json")
    alice = keys.add("alice")
    with serving_gateway(home, security={"keys": str(keys.path)}) as own, own.client() as client:
        client.get("/v1/voices/anna?token=hidden", headers=bearer(alice))
    lines = [record for record in caplog.records if record.name == "serve_apps.access"]
    assert [(line.route, line.status, line.owner, line.method) for line in lines] == [
        ("/v1/voices/{name}", 200, "alice", "GET")
    ]
    assert lines[0].bytes_out > 100 and lines[0].client == "127.0.0.1"
    ours = [str(vars(record)) for record in caplog.records if not record.name.startswith(("httpx", "httpcore"))]
    assert not any(alice in text or "hidden" in text for text in ours)


def test_a_missing_file_of_keys_lets_nobody_in(home: Path) -> None:
    with serving_gateway(home, security={"keys": str(home / "none.json")}) as own, own.client() as client:
        answer = client.get("/v1/voices", headers=bearer("rk_x"))
        assert answer.status_code == 503 and str(home) not in answer.text
        assert client.get("/healthz").status_code == 200
