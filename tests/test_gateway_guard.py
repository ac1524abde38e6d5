"""Host names, web pages of elsewhere, headers, request ids."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from gateway_server import Gateway, gateway_fixture, home_fixture, serving_gateway  # noqa: F401

UUID7 = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")


@pytest.mark.parametrize(
    "host", ["localhost", "localhost:1234", "127.0.0.1", "127.8.9.1:80", "[::1]:8000", "app.localhost"]
)
def test_loopback_names_are_served(gateway: Gateway, host: str) -> None:
    with gateway.client() as client:
        assert client.get("/v1/formats", headers={"Host": host}).status_code == 200


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "localhost.evil.example",
        "10.0.0.7:8000",
        "0.0.0.0",
        "[::2]",
        "",
        "localhost@evil",
        "[::1].evil.example",
    ],
)
def test_other_names_are_not(gateway: Gateway, host: str) -> None:
    """A page of evil.example whose name was rebound to this machine sends that name."""
    with gateway.client() as client:
        answer = client.get("/v1/formats", headers={"Host": host})
        assert (answer.status_code, answer.json()["code"]) == (421, "host_refused")
        assert client.get("/healthz", headers={"Host": host}).status_code == 200, "probes come under any address"


def test_names_that_the_operator_adds(home: Path) -> None:
    with serving_gateway(home, security={"hosts": ["studio.example"]}) as own, own.client() as client:
        assert client.get("/v1/formats", headers={"Host": "Studio.Example:8000"}).status_code == 200
        assert client.get("/v1/formats", headers={"Host": "other.example"}).status_code == 421


CROSS = [
    {"Origin": "https://evil.example"},
    {"Origin": "null"},
    {"Origin": "http://127.0.0.1:1"},
    {"Sec-Fetch-Site": "cross-site"},
    {"Sec-Fetch-Site": "same-site"},
]


@pytest.mark.parametrize("headers", CROSS, ids=str)
def test_pages_of_elsewhere_change_nothing(gateway: Gateway, headers: dict[str, str]) -> None:
    """A form on a web page can post to any address; without keys the API would obey."""
    with gateway.client() as client:
        for method, path in (("POST", "/v1/convert"), ("DELETE", "/v1/voices/anna"), ("POST", "/v1/voices")):
            answer = client.request(method, path, headers=headers, files={"take": b"x"} if method == "POST" else None)
            assert (answer.status_code, answer.json()["code"]) == (403, "forbidden"), (method, path)
        assert client.get("/v1/voices/anna").status_code == 200


@pytest.mark.parametrize(
    "headers", [{}, {"Sec-Fetch-Site": "same-origin"}, {"Sec-Fetch-Site": "none"}, {"Origin": "own"}], ids=str
)
def test_the_studio_and_scripts_may_call(gateway: Gateway, headers: dict[str, str]) -> None:
    if "Origin" in headers:
        headers = {"Origin": gateway.url, "Sec-Fetch-Site": "same-origin"}
    with gateway.client() as client:
        assert client.delete("/v1/voices/nobody", headers=headers).status_code == 404


def test_origins_that_the_operator_allows(home: Path) -> None:
    with serving_gateway(home, security={"origins": ["https://daw.example"]}) as own, own.client() as client:
        origin = {"Origin": "https://daw.example"}
        asked = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization"}
        flight = client.options("/v1/convert", headers={**origin, **asked})
        assert flight.status_code == 200
        assert flight.headers["access-control-allow-origin"] == "https://daw.example"
        answer = client.delete("/v1/voices/nobody", headers={**origin, "Sec-Fetch-Site": "cross-site"})
        assert answer.status_code == 404
        assert answer.headers["access-control-allow-origin"] == "https://daw.example"
        assert "X-Rocktop-Seconds" in answer.headers["access-control-expose-headers"]
        other = client.options("/v1/convert", headers={"Origin": "https://evil.example", **asked})
        assert "access-control-allow-origin" not in other.headers


def test_no_cors_unless_asked_for(gateway: Gateway) -> None:
    with gateway.client() as client:
        answer = client.get("/v1/formats", headers={"Origin": "https://evil.example"})
    assert not [name for name in answer.headers if name.startswith("access-control")]


def test_headers_of_every_answer(gateway: Gateway) -> None:
    with gateway.client() as client:
        for path in ("/v1/formats", "/nothing", "/docs", "/openapi.json"):
            headers = client.get(path).headers
            assert headers["x-content-type-options"] == "nosniff"
            assert "frame-ancestors 'none'" in headers["content-security-policy"]
            assert headers["referrer-policy"] == "no-referrer"
            assert (
                "'unsafe-inline'" not in headers["content-security-policy"].partition("script-src")[2].partition(";")[0]
            )


def test_request_ids(gateway: Gateway) -> None:
    with gateway.client() as client:
        assert UUID7.fullmatch(client.get("/healthz").headers["x-request-id"])
        assert client.get("/healthz", headers={"X-Request-Id": "My.id_7"}).headers["x-request-id"] == "My.id_7"
        for bad in ("a b", "x" * 65, "<script>", ""):
            assert UUID7.fullmatch(client.get("/healthz", headers={"X-Request-Id": bad}).headers["x-request-id"])


def test_routes_that_are_none(gateway: Gateway) -> None:
    with gateway.client() as client:
        for method, path, status, code in (
            ("GET", "/v1/nothing", 404, "not_found"),
            ("PUT", "/v1/voices", 405, "method_not_allowed"),
            ("GET", "/v1/convert", 405, "method_not_allowed"),
            ("GET", "/v1/jobs?limit=x", 422, "invalid_settings"),
        ):
            answer = client.request(method, path)
            problem = answer.json()
            assert (answer.status_code, problem["code"], problem["status"]) == (status, code, status)
            assert answer.headers["content-type"] == "application/problem+json"
            assert set(problem) >= {"type", "title", "detail", "stage", "retryable", "request_id"}


def test_facts_for_clients(gateway: Gateway) -> None:
    with gateway.client() as client:
        formats = {entry["name"]: entry for entry in client.get("/v1/formats").json()["formats"]}
        assert formats["ogg"]["rates"] == [8000, 12000, 16000, 24000, 48000] and not formats["m4a"]["streams"]
        models = client.get("/v1/models").json()
        installed = {
            entry["name"] for entry in models["content_encoders"] + models["pitch_extractors"] if entry["installed"]
        }
        assert installed == {"hubert-v1", "hubert-v2", "pm", "harvest"}
        assert client.get("/v1/limits").json()["upload_bytes"] == gateway.config.limits.upload_bytes
        assert client.get("/readyz").json()["status"] == "ready"


def test_not_ready_while_the_store_is_gone(home: Path) -> None:
    with serving_gateway(home) as own, own.client() as client:
        assert client.get("/v1/voices/anna").status_code == 200
        store = Path(own.config.store_place)
        store.mkdir(exist_ok=True)
        store.rename(home / "aside")
        store.write_text("in the way")
        answer = client.get("/readyz")
        assert (answer.status_code, answer.json()["code"]) == (503, "not_ready")
        assert int(answer.headers["retry-after"]) >= 1 and str(store) not in answer.text
        assert client.get("/healthz").status_code == 200
        failed = client.post("/v1/convert", files={"take": ("a.wav", b"RIFF")})
        assert failed.status_code == 507 and str(store) not in failed.text
        store.unlink()
        (home / "aside").rename(store)
