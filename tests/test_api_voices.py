"""/v1/voices and /docs over real HTTP."""

from __future__ import annotations

import io
import pickle
import re
import tempfile
import zipfile
from pathlib import Path

import pytest
from gateway_server import Gateway, eventually, gateway_fixture, home_fixture, serving_gateway  # noqa: F401
from http_server import serving


@pytest.fixture
def temporary(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The temporary folder of this process, for a while."""
    folder = tmp_path_factory.mktemp("temporary")
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


def test_import_list_show_and_remove(home: Path, temporary: Path) -> None:
    sources = home / "home" / "sources"
    with serving_gateway(home) as own, own.client() as client:
        files = {"voice": ("../My Alto!.pth", (sources / "anna.pth").read_bytes())}
        files["index"] = ("any.index", (sources / "anna.index").read_bytes())
        made = client.post("/v1/voices", files=files, data={"licence": "mine"})
        assert made.status_code == 201, made.text
        assert made.headers["location"] == "/v1/voices/My%20Alto"
        facts = client.get(made.headers["location"]).json()
        assert (facts["name"], facts["licence"], facts["index_vectors"]) == ("My Alto", "mine", 30)
        assert str(home) not in made.text
        names = [voice["name"] for voice in client.get("/v1/voices").json()["voices"]]
        assert names == ["bundle", "My Alto", "anna", "berta"]
        again = client.post("/v1/voices", files={"voice": files["voice"]})
        assert again.status_code == 422 and "replace=true" in again.json()["detail"]
        assert client.post("/v1/voices", files={"voice": files["voice"]}, data={"replace": "true"}).status_code == 201
        assert client.delete(made.headers["location"]).status_code == 204
        assert client.get(made.headers["location"]).json()["code"] == "voice_not_found"
        assert client.delete("/v1/voices/bundle").status_code == 422
        eventually(lambda: not list(temporary.iterdir()))


def test_import_from_an_address(home: Path) -> None:
    data = (home / "home" / "sources" / "anna.pth").read_bytes()

    def answer(link, _request) -> None:
        link.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(data) + data)

    trusting = {"trusted": ["127.0.0.1"]}
    with serving({"/alto.pth": answer}) as other, serving_gateway(home, fetch=trusting) as own, own.client() as client:
        made = client.post("/v1/voices", json={"url": other.url("/alto.pth?key=secret")})
        assert made.status_code == 201, made.text
        assert made.json()["name"] == "alto" and "secret" not in made.text


class Evil:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (exec, ("raise SystemExit",))


def zipped(**members: bytes) -> bytes:
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return data.getvalue()


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("empty.pth", b""),
        ("page.pth", b"<html>"),
        ("evil.pth", pickle.dumps(Evil())),
        ("none.zip", zipped(**{"readme.txt": b"hello"})),
        ("two.zip", zipped(**{"a.pth": b"1", "b.pth": b"2"})),
        ("bomb.zip", zipped(**{"a.pth": bytes(30 << 20)})),
        ("slip.zip", zipped(**{"../../../../tmp/slipped.pth": b"x"})),
    ],
)
def test_files_that_are_no_voice(gateway: Gateway, temporary: Path, name: str, data: bytes) -> None:
    with gateway.client() as client:
        answer = client.post("/v1/voices", files={"voice": (name, data)})
    assert answer.status_code == 422, answer.text
    assert answer.json()["code"] in ("invalid_voice", "unsafe_file")
    assert re.match(rf"{name}|voice.pth", answer.json()["detail"]) and "/tmp" not in answer.text
    eventually(lambda: not list(temporary.iterdir()))
    assert not Path("/tmp/slipped.pth").exists()


def test_voices_that_may_not_be_changed(home: Path) -> None:
    with serving_gateway(home, limits={"import_voices": False}) as own, own.client() as client:
        assert client.post("/v1/voices", files={"voice": ("a.pth", b"x")}).status_code == 403
        assert client.delete("/v1/voices/anna").status_code == 403
        assert client.get("/v1/voices/anna").status_code == 200


def test_voices_above_the_limit(home: Path) -> None:
    with serving_gateway(home, limits={"voice_bytes": 2048}) as own, own.client() as client:
        answer = client.post("/v1/voices", files={"voice": ("a.pth", bytes(5000))})
        assert (answer.status_code, answer.json()["code"]) == (413, "body_too_large")


def test_the_page_of_the_api_asks_nobody_else(gateway: Gateway) -> None:
    with gateway.client() as client:
        page = client.get("/docs")
        assert page.status_code == 200 and "script-src 'self';" in page.headers["content-security-policy"]
        links = re.findall(r'(?:src|href)="([^"]+)"', page.text)
        assert all(link.startswith(("/", "data:")) for link in links)
        for link in links:
            if link.startswith("/"):
                assert client.get(link).status_code == 200, link
        assert re.search(r"<script(?![^>]*src=)", page.text) is None, "no inline scripts"


def test_the_schema_is_enough_to_write_a_script(gateway: Gateway) -> None:
    with gateway.client() as client:
        schema = client.get("/openapi.json").json()
    parts = schema["components"]["schemas"]
    assert {"take", "voice", "key", "format", "stream"} <= set(parts["ConversionForm"]["properties"])
    assert parts["ConversionForm"]["required"] == ["take"] and parts["ConversionJson"]["required"] == ["take_url"]
    convert = schema["paths"]["/v1/convert"]["post"]
    assert {"multipart/form-data", "application/json"} == set(convert["requestBody"]["content"])
    assert "curl -F take=@" in convert["description"]
    assert {"200", "401", "413", "422", "429", "503"} <= set(convert["responses"])
    assert "audio/flac" in convert["responses"]["200"]["content"]
    text = str(schema)
    assert "HTTPValidationError" not in text
    for name in re.findall(r"#/components/schemas/(\w+)", text):
        assert name in parts, name
