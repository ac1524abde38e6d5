"""The studio's files as they are served, without a browser."""

from __future__ import annotations

import re

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from serve_apps import studio


@pytest.fixture(scope="module")
def client() -> TestClient:
    app = FastAPI()
    app.include_router(studio.router())
    return TestClient(app)


def test_the_page_and_its_files_have_types_and_a_policy(client: TestClient) -> None:
    page = client.get("/")
    assert page.status_code == 200 and page.headers["content-type"] == "text/html; charset=utf-8"
    for path, kind in [("studio.css", "text/css"), ("main.js", "text/javascript"), ("icons.svg", "image/svg+xml")]:
        answer = client.get(f"/studio/{path}")
        assert answer.status_code == 200 and answer.headers["content-type"].startswith(kind)
        policy = answer.headers["content-security-policy"]
        assert "script-src 'self'" in policy and "unsafe" not in policy
        assert answer.headers["x-content-type-options"] == "nosniff"


def test_unchanged_files_are_not_sent_again(client: TestClient) -> None:
    first = client.get("/studio/main.js")
    etag = first.headers["etag"]
    for known in (etag, f'"other", {etag}', f"W/{etag}"):
        again = client.get("/studio/main.js", headers={"If-None-Match": known})
        assert again.status_code == 304 and not again.content and again.headers["etag"] == etag
    assert client.get("/studio/main.js", headers={"If-None-Match": '"other"'}).content == first.content
    head = client.head("/studio/main.js")
    assert head.status_code == 200 and not head.content and head.headers["etag"] == etag


@pytest.mark.parametrize(
    "path", ["nothing.js", "../__init__.py", "%2e%2e/__init__.py", "..%2f..%2fconfig.py", "/etc/passwd", "main.js/"]
)
def test_nothing_else_can_be_asked_for(client: TestClient, path: str) -> None:
    assert client.get(f"/studio/{path}").status_code == 404


def test_everything_that_the_page_names_is_there() -> None:
    files = studio.page_files()
    named = set()
    for path, file in files.items():
        text = file.data.decode()
        named |= {(path, name) for name in re.findall(r"/studio/([\w./-]+?\.(?:js|css|svg))", text)}
        named |= {(path, name) for name in re.findall(r'from "\./([\w.]+)"', text)}
    assert len(named) > 40
    assert [pair for pair in sorted(named) if pair[1] not in files] == []
    icons = files["icons.svg"].data.decode()
    used = {glyph for file in files.values() for glyph in re.findall(r'glyph: "([\w-]+)"', file.data.decode())}
    assert [glyph for glyph in sorted(used) if f'id="{glyph}"' not in icons] == []


def test_nothing_inline_nothing_foreign_no_text_becomes_code() -> None:
    for path, file in studio.page_files().items():
        text = file.data.decode()
        for address in re.findall(r"https?://[^\s\"'`<>)]*", text):
            assert address in ("http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink", "https://…") or (
                path == "intake.js"
            ), (path, address)
        assert not re.search(r"\b(eval|(inner|outer|insertAdjacent)HTML|document\.write|new Function)\b", text), path
        if path.endswith(".html"):
            assert not re.search(r"<style|\sstyle=|\son\w+=|<script(?![^>]*\ssrc=)", text)


def test_modules_stay_readable() -> None:
    for path, file in studio.page_files().items():
        if path.endswith(".js"):
            assert file.data.count(b"\n") <= 400, path
