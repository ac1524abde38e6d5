"""Bodies, names and addresses that mean harm: every one is refused with a problem, and nothing is left of it."""

from __future__ import annotations

import http.client
import io
import json
import socket
import time
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest
from gateway_server import Gateway, eventually, gateway_fixture, home_fixture, serving_gateway  # noqa: F401
from http_server import serving
from serve_cluster import PITCH, take_bytes

BOUNDARY = "frontier"
FORM = {"Content-Type": f"multipart/form-data; boundary={BOUNDARY}"}


def part(name: str, data: bytes, filename: str | None = None, extra: str = "") -> bytes:
    file = "" if filename is None else f'; filename="{filename}"'
    head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"{file}\r\n{extra}\r\n'
    return head.encode() + data + b"\r\n"


ANNA = part("voice", b"anna") + part("pitch", PITCH.encode())
END = f"--{BOUNDARY}--\r\n".encode()


def refused(answer: httpx.Response, status: int, code: str) -> dict[str, object]:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    problem: dict[str, object] = answer.json()
    assert (problem["code"], problem["status"]) == (code, status), problem
    assert problem["request_id"] == answer.headers["x-request-id"]
    for secret in ("/root", "/tmp", "/home", "Traceback", ".py"):
        assert secret not in answer.text
    return problem


def post(gateway: Gateway, body: bytes | Iterator[bytes], headers: dict[str, str] | None = None) -> httpx.Response:
    with gateway.client() as client:
        return client.post("/v1/convert", content=body, headers=headers or FORM)


def bomb() -> bytes:
    """A zip of 50 MB of nothing, 50 kB."""
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.wav", bytes(50 << 20))
    return data.getvalue()


def huge_wav() -> bytes:
    """A header that promises 4 GiB of audio, and none of it."""
    return b"RIFF\xff\xff\xff\xffWAVEfmt \x10\0\0\0\1\0\1\0\x80\xbb\0\0\0\x77\1\0\2\0\x10\0data\xff\xff\xff\xff"


TAKES = {
    "empty": b"",
    "html": b"<!doctype html><script>alert(1)</script>",
    "zip bomb": bomb(),
    "gzip": zlib.compress(bytes(1 << 20)),
    "promised": huge_wav(),
    "playlist": b"#EXTM3U\nfile:///etc/passwd\n",
    "concat": b"ffconcat version 1.0\nfile /etc/passwd\n",
    "svg": b'<svg xmlns="http://www.w3.org/2000/svg"><image href="file:///etc/passwd"/></svg>',
    "cut": take_bytes()[:100],
    "ogg": b"OggS" + bytes(300),
}


@pytest.mark.parametrize("name", TAKES)
def test_takes_that_are_none(gateway: Gateway, name: str) -> None:
    before = gateway.spooled()
    with gateway.client() as client:
        answer = client.post(
            "/v1/convert", files={"take": ("a.wav", TAKES[name])}, data={"voice": "anna", "pitch": PITCH}
        )
    assert answer.status_code == 422, answer.text
    assert answer.json()["code"] in ("invalid_audio", "unsupported_format")
    assert "passwd" not in answer.text and "/tmp" not in answer.text
    assert "a.wav" in answer.json()["detail"]
    eventually(lambda: set(gateway.spooled()) <= set(before))


BODIES = {
    "no boundary": (b"x", {"Content-Type": "multipart/form-data"}, 400, "bad_request"),
    "other form": (END, {"Content-Type": "multipart/mixed; boundary=n"}, 415, "unsupported_media_type"),
    "wrong boundary": (part("take", b"x").replace(b"--", b"-+") + END, FORM, 400, "bad_request"),
    "long boundary": (b"x", {"Content-Type": "multipart/form-data; boundary=" + "b" * 5000}, 400, "bad_request"),
    "nothing": (b"", FORM, 400, "bad_request"),
    "cut short": (part("take", b"RIFF", "a.wav")[:-2], FORM, 400, "bad_request"),
    "no end": (part("take", b"RIFF", "a.wav"), FORM, 400, "bad_request"),
    "no name": (f"--{BOUNDARY}\r\n\r\nx\r\n".encode() + END, FORM, 400, "bad_request"),
    "huge header": (part("take", b"x", "a", f"X-Pad: {'a' * 100_000}\r\n") + END, FORM, 400, "bad_request"),
    "many headers": (part("take", b"x", "a", "X-Pad: a\r\n" * 1000) + END, FORM, 400, "bad_request"),
    "no take": (part("voice", b"anna") + END, FORM, 422, "invalid_settings"),
    "take as text": (part("take", b"RIFF") + ANNA + END, FORM, 422, "unsupported_format"),
    "huge field": (part("voice", b"a" * 9000) + END, FORM, 422, "invalid_settings"),
    "many fields": (b"".join(part(f"f{n}", b"1") for n in range(100)) + END, FORM, 422, "invalid_settings"),
    "unknown field": (part("frobnicate", b"1") + part("take", take_bytes(), "a") + END, FORM, 422, "invalid_settings"),
    "field twice": (part("key", b"1") * 2 + part("take", take_bytes(), "a") + END, FORM, 422, "invalid_settings"),
    "two takes": (part("take", take_bytes(), "a") * 2 + END, FORM, 422, "invalid_settings"),
    "file as field": (part("voice", b"anna", "voice.txt") + END, FORM, 422, "invalid_settings"),
    "not text": (part("voice", b"\xff\xfe") + part("take", take_bytes(), "a") + END, FORM, 422, "invalid_settings"),
    "address in a form": (part("take_url", b"http://x") + END, FORM, 422, "invalid_settings"),
    "not a number": (part("key", b"nan") + part("take", take_bytes(), "a") + END, FORM, 422, "invalid_settings"),
    "nul": (part("voice", b"a\0b") + part("take", take_bytes(), "a") + END, FORM, 404, "voice_not_found"),
    "xml": (b"<a/>", {"Content-Type": "application/xml"}, 415, "unsupported_media_type"),
    "no type": (b"RIFF", {"Content-Type": ""}, 415, "unsupported_media_type"),
    "urlencoded": (b"key=1", {"Content-Type": "application/x-www-form-urlencoded"}, 415, "unsupported_media_type"),
    "not json": (b"{", {"Content-Type": "application/json"}, 422, "invalid_settings"),
    "array": (b"[]", {"Content-Type": "application/json"}, 422, "invalid_settings"),
    "deep": (b"[" * 100_000, {"Content-Type": "application/json"}, 422, "invalid_settings"),
    "long number": (b'{"key": ' + b"9" * 10_000 + b"}", {"Content-Type": "application/json"}, 422, "invalid_settings"),
    "surrogate": (b'{"take_url": "\\ud800"}', {"Content-Type": "application/json"}, 422, "invalid_settings"),
    "no address": (b"{}", {"Content-Type": "application/json"}, 422, "invalid_settings"),
    "text for a number": (b'{"key": "3"}', {"Content-Type": "application/json"}, 422, "invalid_settings"),
}  # fmt: skip


@pytest.mark.parametrize("name", BODIES)
def test_bodies(gateway: Gateway, name: str) -> None:
    body, headers, status, code = BODIES[name]
    before = gateway.spooled()
    refused(post(gateway, body, headers), status, code)
    eventually(lambda: set(gateway.spooled()) <= set(before))


def test_problems_name_the_fields(gateway: Gateway) -> None:
    body = json.dumps({"take_url": "http://a.b/c", "key": 99, "rate": "fast", "colour": 1}).encode()
    problem = refused(post(gateway, body, {"Content-Type": "application/json"}), 422, "invalid_settings")
    fields = {entry["field"]: entry["message"] for entry in problem["errors"]}  # type: ignore[attr-defined, index]
    assert set(fields) == {"key", "rate", "colour"}
    assert "unknown" in fields["colour"] and "36" in fields["key"]


@pytest.mark.parametrize(
    ("filename", "shown"),
    [
        ("../../../etc/cron.d/x", "x.anna.flac"),
        ("..\\..\\evil.wav", "evil.anna.flac"),
        ("/etc/passwd", "passwd.anna.flac"),
        ("..", "take.anna.flac"),
        ("a\tb.wav", "ab.anna.flac"),
        ("x" * 3000 + ".wav", None),
    ],
)
def test_file_names_are_only_labels(gateway: Gateway, filename: str, shown: str | None) -> None:
    fields = part("voice", b"anna") + part("pitch", PITCH.encode())
    answer = post(gateway, fields + part("take", take_bytes(), filename) + END)
    assert answer.status_code == 200, answer.text
    disposition = answer.headers["content-disposition"]
    assert "/" not in disposition and len(disposition) < 600
    if shown:
        assert f'filename="{shown}"' in disposition


def test_names_in_unicode(gateway: Gateway) -> None:
    fields = part("voice", b"anna") + part("pitch", PITCH.encode())
    answer = post(gateway, fields + part("take", take_bytes(), "Süße 歌.wav") + END)
    assert answer.status_code == 200
    assert "filename*=UTF-8''S%C3%BC%C3%9Fe%20%E6%AD%8C.anna.flac" in answer.headers["content-disposition"]


def test_a_body_above_the_limit_is_refused_before_it_is_read(home: Path) -> None:
    with serving_gateway(home, limits={"upload_bytes": 1 << 20}) as own:
        where = urlsplit(own.url)
        link = http.client.HTTPConnection(where.hostname or "", where.port or 0, timeout=60)
        link.putrequest("POST", "/v1/convert")
        link.putheader("Content-Type", FORM["Content-Type"])
        link.putheader("Content-Length", str(1 << 40))
        link.endheaders()  # not a byte of the body
        answer = link.getresponse()
        problem = json.loads(answer.read())
        assert (answer.status, problem["code"]) == (413, "body_too_large")
        link.close()
        assert own.spooled() == []


def test_an_endless_upload_ends_at_the_limit(home: Path) -> None:
    sent = 0

    def endless() -> Iterator[bytes]:
        nonlocal sent
        yield part("take", b"", "a.wav")[:-2]
        while True:
            sent += 1 << 16
            yield bytes(1 << 16)
            if sent > 1 << 30:
                raise AssertionError("nobody stopped it")

    with serving_gateway(home, limits={"upload_bytes": 2 << 20}) as own:
        try:
            answer = post(own, endless())
        except (httpx.WriteError, httpx.ReadError):
            pass  # it was cut off while it sent
        else:
            refused(answer, 413, "body_too_large")
        assert sent < 1 << 28
        eventually(lambda: own.spooled() == [])
        leftovers = [
            path for path in Path(own.config.store_place).rglob("*") if path.is_file() and "takes" in str(path)
        ]
        assert leftovers == []


def test_a_client_that_vanishes_while_it_uploads_leaves_nothing(home: Path) -> None:
    with serving_gateway(home) as own:
        where = urlsplit(own.url)
        with socket.create_connection((where.hostname or "", where.port or 0)) as link:
            head = f"POST /v1/convert HTTP/1.1\r\nHost: localhost\r\nContent-Type: {FORM['Content-Type']}\r\n"
            link.sendall(head.encode() + b"Content-Length: 100000000\r\n\r\n" + part("take", bytes(3 << 20), "a.wav"))
            time.sleep(0.3)
        store = Path(own.config.store_place)
        eventually(lambda: not [path for path in store.rglob("*") if path.is_file() and "takes" in str(path)])
        with own.client() as client:
            assert client.get("/healthz").status_code == 200


def test_a_client_that_stops_sending_is_let_go(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("serve_apps.gateway.bodies.SILENCE", 0.3)
    with serving_gateway(home) as own:
        where = urlsplit(own.url)
        link = http.client.HTTPConnection(where.hostname or "", where.port or 0, timeout=60)
        link.putrequest("POST", "/v1/convert")
        link.putheader("Content-Type", FORM["Content-Type"])
        link.putheader("Content-Length", "100000")
        link.endheaders(part("take", b"RIFF", "a.wav")[:-2])  # and nothing more
        answer = link.getresponse()
        assert (answer.status, json.loads(answer.read())["code"]) == (408, "body_timeout")
        link.close()


def test_a_client_that_sends_a_byte_now_and_then_is_let_go(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else a few of them would hold all places for ever."""
    monkeypatch.setattr("serve_apps.gateway.bodies.SILENCE", 0.4)
    with serving_gateway(home) as own:

        def slow() -> Iterator[bytes]:
            yield part("take", b"RIFF", "a.wav")[:-2]
            for _ in range(30):
                time.sleep(0.1)
                yield b"x"
            yield END

        refused(post(own, slow()), 408, "body_timeout")


ADDRESSES = [
    "http://127.0.0.1:8000/v1/voices",
    "http://localhost/",
    "http://[::1]/",
    "http://169.254.169.254/latest/meta-data/",
    "http://2130706433/",
    "http://0x7f000001/",
    "http://metadata.google.internal/",
    "http://10.0.0.1/",
    "file:///etc/passwd",
    "gopher://127.0.0.1:6379/_INFO",
    "http://user:secret@example.com/",
    "ftp://example.com/a.wav",
    "/etc/passwd",
    "http://",
    "http://a b/",
    "data:text/plain;base64,%%%",
    "\x00",
]


@pytest.mark.parametrize("url", ADDRESSES)
def test_addresses_that_lead_inside(home: Path, url: str) -> None:
    with serving_gateway(home) as own, own.client() as client:
        for path, body in (
            ("/v1/convert", {"take_url": url}),
            ("/v1/jobs", {"take_url": url}),
            ("/v1/voices", {"url": url}),
        ):
            answer = client.post(path, json=body)
            assert answer.status_code == 422, (path, answer.text)
            assert answer.json()["code"] in ("url_refused", "url_content", "invalid_settings")
            assert "secret" not in answer.text


def test_redirects_that_lead_inside(gateway: Gateway) -> None:
    def inside(link: socket.socket, _request: object) -> None:
        link.sendall(b"HTTP/1.1 302 Found\r\nLocation: http://169.254.169.254/latest\r\nContent-Length: 0\r\n\r\n")

    def page(link: socket.socket, _request: object) -> None:
        link.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: audio/wav\r\nContent-Length: 6\r\n\r\n<html>")

    with serving({"/away": inside, "/page": page}) as other, gateway.client() as client:
        away = client.post("/v1/convert", json={"take_url": other.url("/away?token=secret")})
        problem = refused(away, 422, "url_refused")
        assert "169.254" not in away.text and "secret" not in away.text, problem
        refused(client.post("/v1/convert", json={"take_url": other.url("/page")}), 422, "url_content")
        refused(client.post("/v1/convert", json={"take_url": other.url("/none")}), 404, "url_not_found")


@pytest.mark.parametrize(
    "path",
    [
        "/v1/voices/..%2f..%2fetc%2fpasswd",
        "/v1/voices/%00",
        "/v1/jobs/..%2f..",
        "/docs/..%2f..%2fapp.py",
        "/v1/voices/%ff",
    ],
)
def test_paths_lead_nowhere(gateway: Gateway, path: str) -> None:
    with gateway.client() as client:
        for method in ("GET", "DELETE"):
            answer = client.request(method, path)
            assert answer.status_code in (404, 405, 422), answer.text
            assert answer.headers["content-type"] == "application/problem+json"


def test_unexpected_errors_show_nothing(home: Path, caplog: pytest.LogCaptureFixture) -> None:
    with serving_gateway(home) as own, own.client() as client:

        def broken(*_: object) -> None:
            raise ValueError("password=hunter2 in /srv/secret")

        object.__setattr__(own.services.voices, "infos", broken)
        answer = client.get("/v1/voices", headers={"X-Request-Id": "look-me-up"})
        problem = refused(answer, 500, "internal_error")
        assert problem["request_id"] == "look-me-up"
        assert "hunter2" not in answer.text and "secret" not in answer.text
    assert any(record.message == "unexpected error" and record.exc_info for record in caplog.records)
