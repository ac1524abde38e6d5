"""The one place where errors become answers: ``application/problem+json`` (RFC 9457)."""

from __future__ import annotations

import logging
import math
import re
import tempfile
from collections.abc import Callable, Mapping
from http import HTTPStatus
from pathlib import Path
from typing import Any

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.requests import Request

from rocktop_ray import paths
from rocktop_ray.errors import RocktopError
from serve_apps.config import ServeConfig
from serve_apps.gateway.refusals import BadRequestError, GatewayError, MethodError, RouteNotFoundError
from serve_apps.requests import FieldsError

MEDIA_TYPE = "application/problem+json"
DEFAULT_RETRY = {429: 2.0, 503: 5.0}
"""Seconds said in ``Retry-After`` where the error itself knows no better."""

UNEXPECTED = "something went wrong here; the operator finds it in the log under this request id"
_TITLES = {413: "Content Too Large", 422: "Unprocessable Content", 499: "Client Closed Request"}
"""Names of RFC 9110 that older Pythons do not have, and one of custom."""
_PATH = re.compile(r"(?:file://|(?<![\w:/.?=&%<-]))/(?!v[12]/)(?:[^\s/:;,'\"()<>]+/)+([^\s/:;,'\"()<>]*)")

_REST = "[^\\s:;,'\"()]"
"""What a path goes on with."""

_log = logging.getLogger(__name__)


class Veil:
    """Takes out of messages where things lie on this machine: that is nobody's business outside."""

    def __init__(self, config: ServeConfig) -> None:
        places: dict[str, str] = {}
        known = {
            config.store_place: "the store",
            str(config.cache_folder): "the cache",
            config.voices.library or str(paths.voices()): "the voice library",
            str(paths.home()): "the server's folder",
            tempfile.gettempdir(): "the temporary folder",
            str(Path(__file__).parents[2]): "the program's folder",
            str(Path.home()): "the server's folder",
        }
        for text, word in known.items():
            for form in {text, str(Path(text).expanduser().absolute()) if "://" not in text else text}:
                if len(form) > 1:
                    places.setdefault(form.rstrip("/"), word)
        self._places = sorted(places.items(), key=lambda entry: -len(entry[0]))

    def hide(self, message: str, names: Mapping[str, str] | None = None) -> str:
        """``message`` without paths; files of the spool by what the client calls them (``names``: key -> label)."""
        for key, name in (names or {}).items():
            file = rf"\.?{re.escape(key.rsplit('/', 1)[-1])}{_REST}*"
            for place, _ in self._places:
                message = re.sub(rf"{re.escape(place)}/(?:{_REST}*/)?{file}", _always(name), message)
            message = re.sub(rf"{_REST}*{file}", _always(name), message)
        for place, word in self._places:
            inside = rf"(?:the (?:voice )?library )?{re.escape(place)}(?:/{_REST}*?([^\s/:;,'\"()]*))?(?=[\s:;,'\")]|$)"
            message = re.sub(inside, _inside(word), message)
        return _PATH.sub(r"\1", message)


def _always(text: str) -> Callable[[re.Match[str]], str]:
    return lambda _: text


def _inside(word: str) -> Callable[[re.Match[str]], str]:
    return lambda found: f"{word} ({found[1]})" if found[1] else word


def problem(error: RocktopError, request_id: str | None, detail: str | None = None) -> dict[str, Any]:
    """The body of an answer. ``detail``: the message as it may be shown, in place of the error's own."""
    data: dict[str, Any] = {
        "type": "about:blank",
        "title": title(error.http_status),
        "status": error.http_status,
        "detail": error.message if detail is None else detail,
        "code": error.code,
        "stage": error.stage,
        "retryable": error.retryable,
        "request_id": request_id,
    }
    if isinstance(error, FieldsError):
        data["errors"] = error.problems
    return data


def title(status: int) -> str:
    """The phrase of an HTTP status."""
    try:
        return _TITLES.get(status) or HTTPStatus(status).phrase
    except ValueError:
        return "Error"


def retry_after(error: RocktopError) -> float | None:
    """Seconds after which it makes sense to try again, None if that is not known."""
    return getattr(error, "retry_after", None) or DEFAULT_RETRY.get(error.http_status)


def respond(error: RocktopError, scope: Mapping[str, Any], veil: Veil) -> JSONResponse:
    """The answer to a request that failed."""
    state = scope.get("state", {})
    headers = dict(error.headers) if isinstance(error, GatewayError) else {}
    retry = retry_after(error)
    if retry is not None:
        headers["Retry-After"] = str(max(1, math.ceil(retry)))
    detail = veil.hide(error.message, state.get("names"))
    state["error_code"] = error.code
    if error.http_status >= 500:
        _log.warning("request failed", extra={"code": error.code, "stage": error.stage, "why": error.message})
    data = problem(error, state.get("request_id"), detail)
    return JSONResponse(data, error.http_status, headers=headers, media_type=MEDIA_TYPE)


def unexpected(error: BaseException, scope: Mapping[str, Any], veil: Veil) -> JSONResponse:
    """The answer where a fault of the program was met: it says nothing of it, the log says all."""
    _log.error("unexpected error", exc_info=error)
    return respond(RocktopError(UNEXPECTED), scope, veil)


def install(app: FastAPI, veil: Veil) -> None:
    """Let the application answer with problems, also where the framework refuses by itself."""

    async def known(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, RocktopError)
        return respond(error, request.scope, veil)

    async def refused(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, HTTPException)
        return respond(_as_error(error, request), request.scope, veil)

    async def invalid(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, RequestValidationError)
        problems = [
            {"field": ".".join(str(part) for part in entry["loc"][1:])[:64] or "body", "message": entry["msg"][:200]}
            for entry in error.errors()[:32]
        ]
        return respond(FieldsError(problems), request.scope, veil)

    app.add_exception_handler(RocktopError, known)
    app.add_exception_handler(HTTPException, refused)
    app.add_exception_handler(RequestValidationError, invalid)


def _as_error(error: HTTPException, request: Request) -> RocktopError:
    headers = dict(error.headers or {})
    if error.status_code == 404:
        return RouteNotFoundError(f"there is nothing at {request.url.path[:200]}; see /docs", headers=headers)
    if error.status_code == 405:
        allowed = headers.get("Allow", "")
        hint = f", only {allowed}" if allowed else ""
        return MethodError(f"{request.method} is not possible here{hint}; see /docs", headers=headers)
    refusal = BadRequestError(str(error.detail), headers=headers)
    refusal.http_status = error.status_code
    return refusal
