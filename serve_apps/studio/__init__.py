"""The studio page: a folder of static files, served as they are. No build step, nothing from another host."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from importlib import resources
from importlib.resources.abc import Traversable

from fastapi import APIRouter, HTTPException, Request, Response

MEDIA_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}

HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; media-src 'self' blob:; "
        "connect-src 'self'; worker-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "Permissions-Policy": "microphone=(self), camera=(), geolocation=()",
    "Referrer-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-cache",  # kept, but asked for by ETag each time: an upgrade shows at once
}


@dataclass(frozen=True)
class PageFile:
    """One file of the page, read when the router is made."""

    data: bytes
    media_type: str
    etag: str


def router() -> APIRouter:
    """``GET /`` is the page, ``GET /studio/{path}`` its files; HEAD and If-None-Match are answered."""
    files = page_files()
    routes = APIRouter(include_in_schema=False)

    @routes.api_route("/", methods=["GET", "HEAD"])
    def page(request: Request) -> Response:
        return _answer(request, files["index.html"])

    @routes.api_route("/studio/{path:path}", methods=["GET", "HEAD"])
    def file(path: str, request: Request) -> Response:
        found = files.get(path or "index.html")
        if found is None:
            raise HTTPException(404, "the studio has no such file")
        return _answer(request, found)

    return routes


def page_files() -> dict[str, PageFile]:
    """Every file of the page by its path below ``/studio/``; only these can be asked for."""
    found: dict[str, PageFile] = {}
    _gather(resources.files(__name__) / "page", "", found)
    return found


def _gather(folder: Traversable, prefix: str, found: dict[str, PageFile]) -> None:
    for entry in folder.iterdir():
        if entry.is_dir():
            _gather(entry, f"{prefix}{entry.name}/", found)
            continue
        suffix = entry.name[entry.name.rfind(".") :]
        if suffix in MEDIA_TYPES:
            data = entry.read_bytes()
            etag = f'"{hashlib.sha256(data).hexdigest()[:32]}"'
            found[prefix + entry.name] = PageFile(data, MEDIA_TYPES[suffix], etag)


def _answer(request: Request, file: PageFile) -> Response:
    headers = {**HEADERS, "ETag": file.etag}
    known = [tag.strip().removeprefix("W/") for tag in request.headers.get("if-none-match", "").split(",")]
    if file.etag in known or "*" in known:
        return Response(status_code=304, headers=headers)
    return Response(file.data, media_type=file.media_type, headers=headers)
