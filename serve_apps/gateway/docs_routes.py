"""GET /docs: Swagger UI from the files of an installed package, no third-party hosts, no inline scripts."""

from __future__ import annotations

import importlib.util
from html import escape
from pathlib import Path

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import FileResponse, HTMLResponse, Response

from serve_apps.gateway.refusals import RouteNotFoundError

PACKAGE = "fastapi_offline"
"""Carries Swagger UI (Apache-2.0); only its files are used."""
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; "
    "media-src 'self' blob:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
"""Swagger UI sets styles by itself."""

_FILES = {"swagger-ui-bundle.js": "text/javascript", "swagger-ui.css": "text/css"}
_START = """\
const base = document.currentScript.dataset.base;
window.ui = SwaggerUIBundle({
  url: base + "/openapi.json",
  dom_id: "#docs",
  deepLinking: true,
  tryItOutEnabled: true,
  persistAuthorization: false,
  validatorUrl: null,
  defaultModelsExpandDepth: 0,
});
"""
_PAGE = """\
<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>rocktop-ray API</title>
<link rel="icon" href="data:,">
<link rel="stylesheet" href="{base}/docs/swagger-ui.css">
</head>
<body>
<div id="docs"></div>
<noscript>This page needs JavaScript; the same is at <a href="{base}/openapi.json">openapi.json</a>.</noscript>
<script src="{base}/docs/swagger-ui-bundle.js"></script>
<script src="{base}/docs/start.js" data-base="{base}"></script>
</body>
</html>
"""


def router() -> APIRouter:
    """The page and its files. Without the package that carries them, the page says where the schema is."""
    routes = APIRouter(include_in_schema=False)
    folder = _folder()

    @routes.get("/docs")
    async def docs(request: Request) -> Response:
        base = escape(request.scope.get("root_path", "").rstrip("/"))
        if folder is None:
            text = f"This page needs a package: pip install fastapi-offline. The same is at {base}/openapi.json\n"
            return Response(text, media_type="text/plain")
        return HTMLResponse(_PAGE.format(base=base), headers={"Content-Security-Policy": POLICY})

    @routes.get("/docs/start.js")
    async def start() -> Response:
        return Response(_START, media_type="text/javascript")

    @routes.get("/docs/{name}")
    async def file(name: str) -> Response:
        if folder is None or name not in _FILES:
            raise RouteNotFoundError("there is no such file")
        return FileResponse(folder / name, media_type=_FILES[name], headers={"Cache-Control": "max-age=86400"})

    return routes


def _folder() -> Path | None:
    """Where the package keeps its files; it is not imported."""
    found = importlib.util.find_spec(PACKAGE)
    if found is None or found.origin is None:
        return None
    folder = Path(found.origin).parent / "static"
    return folder if all((folder / name).is_file() for name in _FILES) else None
