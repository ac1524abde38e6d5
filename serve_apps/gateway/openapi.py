"""What /docs and /openapi.json say beyond what the routes' types say: bodies, examples, errors, command lines."""

from __future__ import annotations

import copy
from dataclasses import asdict
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from rocktop_ray.audio.formats import FORMATS
from rocktop_ray.settings import ConvertSettings
from serve_apps.config import ServeConfig
from serve_apps.gateway.problems import MEDIA_TYPE
from serve_apps.gateway.voice_objects import VoiceAddresses, VoiceForm
from serve_apps.requests import DEFAULT_FORMAT, ConversionRequest

Json = dict[str, Any]

ABOUT = """
Convert a sung take into another voice, keeping the melody and the words.

* **One take, while you wait:** `POST /v1/convert` answers with the audio; with `stream=true` while it is made.
* **Long takes, many takes:** `POST /v1/jobs` or `POST /v1/batches`, then follow `GET /v1/jobs/{id}` or its `events`.
* **Voices:** `GET /v1/voices` lists them, `POST /v1/voices` imports RVC voices (.pth, .safetensors, zip).

Every reply has an `X-Request-Id`; one that you send (1 to 64 letters, digits, `.`, `_`, `-`) is kept.
Errors are `application/problem+json` with a stable `code`, the `stage` where it happened, and whether a retry can help;
429 and 503 say in `Retry-After` when.
Where the operator has set keys, send yours as `Authorization: Bearer KEY` or `X-API-Key: KEY`.
"""

TAGS = [
    {"name": "convert", "description": "One take, while you wait."},
    {"name": "jobs", "description": "Conversions that go on without you, one by one or in batches."},
    {"name": "voices", "description": "The voices that takes are converted into."},
    {"name": "service", "description": "What there is, and what may be asked for."},
    {"name": "operation", "description": "For those who run it: health and metrics."},
]

_BINARY: Json = {"type": "string", "format": "binary"}
_SAID = {
    400: "The request is not well formed, e.g. cut short",
    401: "No key, or not a known one",
    403: "The key does not allow this, or the call comes from a web page that may not make it",
    404: "There is no such voice, job, object or route",
    408: "The body stopped coming in",
    409: "The job is not in a state that allows this",
    413: "The body, the file or the take is larger than the limit: see `GET /v1/limits`",
    415: "Neither a form nor JSON",
    416: "The object does not have these bytes",
    421: "The service is not reached under this host name",
    422: "A field, the audio, the voice or the address cannot be used; `errors` names fields",
    429: "Too much at once: see `Retry-After`",
    500: "A fault of the service; the operator finds it by the request id",
    502: "The server behind an address, or the store, failed",
    503: "Not ready, or a model is not installed; see `Retry-After`",
    504: "The server behind an address, or the store, was too slow",
    507: "The disk is full or read-only",
}
_EVERYWHERE = (400, 401, 403, 404, 421, 422, 429, 500, 503)

_PROBLEM: Json = {
    "type": "object",
    "description": "What went wrong (RFC 9457).",
    "required": ["type", "title", "status", "detail", "code", "stage", "retryable", "request_id"],
    "properties": {
        "type": {"type": "string"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string", "description": "What happened and what to do, for people."},
        "code": {"type": "string", "description": "A stable name, for programs."},
        "stage": {"type": "string", "description": "Where: `input`, `download`, `audio`, `voice`, `store`..."},
        "retryable": {"type": "boolean", "description": "Whether the same call may succeed later."},
        "request_id": {"type": ["string", "null"]},
        "errors": {
            "type": "array",
            "description": "Which fields of the request are wrong.",
            "items": {
                "type": "object",
                "required": ["field", "message"],
                "properties": {"field": {"type": "string"}, "message": {"type": "string"}},
            },
        },
    },
    "example": {
        "type": "about:blank",
        "title": "Unprocessable Content",
        "status": 422,
        "detail": "key: should be less than or equal to 36",
        "code": "invalid_settings",
        "stage": "input",
        "retryable": False,
        "request_id": "01976b1e-7d7c-7c4e-9d3a-0c5a2f1b8e77",
        "errors": [{"field": "key", "message": "should be less than or equal to 36"}],
    },
}


def errors(*statuses: int) -> dict[int | str, Json]:
    """Documentation of error answers, those that every route may give included."""
    return {status: _error(status) for status in sorted({*_EVERYWHERE, *statuses})}


def _error(status: int) -> Json:
    content = {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}}
    answer: Json = {"description": _SAID[status], "content": content}
    if status in (429, 503):
        answer["headers"] = {"Retry-After": {"schema": {"type": "integer"}, "description": "Seconds to wait."}}
    return answer


def _body(form: str, json: str, example: Json) -> Json:
    ref = "#/components/schemas/"
    return {
        "requestBody": {
            "required": True,
            "content": {
                "multipart/form-data": {"schema": {"$ref": ref + form}},
                "application/json": {"schema": {"$ref": ref + json}, "example": example},
            },
        }
    }


_TAKE = "https://example.com/takes/verse.wav"
_BODIES = {
    "/v1/convert": _body("ConversionForm", "ConversionJson", {"take_url": _TAKE, "voice": "bundle", "key": -2}),
    "/v1/jobs": _body("ConversionForm", "ConversionJson", {"take_url": _TAKE, "format": "wav24"}),
    "/v1/batches": _body("BatchForm", "BatchJson", {"take_urls": [_TAKE], "voice": "bundle"}),
}

_KINDS = dict.fromkeys([FORMATS[DEFAULT_FORMAT].media_type, *(entry.media_type for entry in FORMATS.values())])
_TRIED: Json = {**asdict(ConvertSettings()), "pitch": "fcpe", "bitrate": "128k"}
"""What the form of /docs begins with: without examples it takes the end of each range."""

CONVERT: Json = {
    "summary": "Convert a take while you wait",
    "description": f"""
Send the take as a form, or its address as JSON. What you leave out is as the voice's own `defaults` say.

```sh
curl -F take=@verse.wav -F voice=bundle -F key=-2 -o verse.flac http://127.0.0.1:8000/v1/convert
curl -F take=@verse.wav -F format=mp3 -F bitrate=192k -F stream=true http://127.0.0.1:8000/v1/convert | mpv -
curl --json '{{"take_url": "{_TAKE}", "format": "wav"}}' -OJ http://127.0.0.1:8000/v1/convert
```

The result has exactly the take's length and never peaks above -1 dBFS. The same take, voice, settings and seed give the
same bytes. When you hang up, the work stops. `reply=json` (or `Accept: application/json`) answers with a finished job
and a link to its audio, which is kept for a while.
""",
    "responses": {
        200: {
            "description": "The converted take, or with `reply=json` the finished job",
            "headers": {
                "X-Rocktop-Seconds": {"schema": {"type": "number"}, "description": "Length of the take."},
                "X-Rocktop-Key": {"schema": {"type": "number"}, "description": "Semitones between take and result."},
                "X-Rocktop-Real-Time-Factor": {
                    "schema": {"type": "number"},
                    "description": "Seconds of work per second of the take.",
                },
                "Content-Disposition": {"schema": {"type": "string"}, "description": "A name for the file."},
            },
            "content": {
                **{kind: {"schema": _BINARY} for kind in _KINDS},
                "application/json": {"schema": {"$ref": "#/components/schemas/JobObject"}},
            },
        },
        206: {"description": "The part that `Range` asks for", "content": {"audio/*": {"schema": _BINARY}}},
        **errors(408, 413, 415, 416, 502, 504, 507),
    },
    "openapi_extra": _BODIES["/v1/convert"],
}

_VOICE_URL = "https://example.com/voices/alto.pth"
IMPORT: Json = {
    "summary": "Import a voice",
    "description": f"""
A .pth or .safetensors of RVC or Applio, or a zip with one and its index. It is read and checked first; nothing in it is
ever run.

```sh
curl -F voice=@alto.pth -F index=@alto.index -F name=alto http://127.0.0.1:8000/v1/voices
curl --json '{{"url": "{_VOICE_URL}", "name": "alto"}}' http://127.0.0.1:8000/v1/voices
```
""",
    "responses": {
        201: {
            "description": "The voice is there",
            "headers": {"Location": {"schema": {"type": "string"}, "description": "Its own address."}},
        },
        **errors(408, 413, 415, 502, 504, 507),
    },
    "openapi_extra": _body("VoiceUpload", "VoiceAddresses", {"url": _VOICE_URL, "name": "alto"}),
}
ONE_VOICE: Json = {"responses": errors()}
REMOVE: Json = {
    "description": "```sh\ncurl -X DELETE http://127.0.0.1:8000/v1/voices/alto\n```",
    "responses": errors(507),
}


def describe(app: FastAPI, config: ServeConfig) -> None:
    """Let the application describe itself so."""

    def schema() -> Json:
        if app.openapi_schema is None:
            data = get_openapi(title=app.title, version=app.version, description=ABOUT, tags=TAGS, routes=app.routes)
            app.openapi_schema = _completed(data, config)
        return app.openapi_schema

    app.openapi = schema  # type: ignore[method-assign]


def _completed(data: Json, config: ServeConfig) -> Json:
    parts = data.setdefault("components", {}).setdefault("schemas", {})
    fields = _without_null(ConversionRequest.model_json_schema())
    for name, value in _TRIED.items():
        fields["properties"][name]["examples"] = [value]
    upload = _without_null(VoiceForm.model_json_schema())
    parts |= {
        "Problem": _PROBLEM,
        "ConversionForm": _with_files(fields, {"take": _file("The take: any common audio file.")}, ["take"]),
        "ConversionJson": _only(fields, "take_url", "take_urls"),
        "BatchForm": _with_files(fields, {"take": {"type": "array", "items": _BINARY, "minItems": 1}}, ["take"]),
        "BatchJson": _only(fields, "take_urls", "take_url"),
        "VoiceUpload": _with_files(
            upload, {"voice": _file("The voice, or a zip."), "index": _file("Its retrieval index.")}, ["voice"]
        ),
        "VoiceAddresses": _without_null(VoiceAddresses.model_json_schema()),
    }
    for path, methods in data["paths"].items():
        for method, operation in methods.items():
            if method == "post" and path in _BODIES:
                operation.setdefault("requestBody", _BODIES[path]["requestBody"])
            _with_problems(path, method, operation)
    for unused in ("HTTPValidationError", "ValidationError"):
        parts.pop(unused, None)
    if config.security.keys is not None:
        data["components"]["securitySchemes"] = {
            "bearer": {"type": "http", "scheme": "bearer"},
            "key": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
        }
        data["security"] = [{"bearer": []}, {"key": []}]
    return data


def _with_problems(path: str, method: str, operation: Json) -> None:
    answers = operation["responses"]
    if "/source" in path:  # a take that nobody knows has no better type
        for good in ("200", "206"):
            answers[good]["content"]["application/octet-stream"] = {"schema": _BINARY}
    usual = {*_EVERYWHERE, 409} if path.startswith(("/v1/jobs", "/v1/batches")) else set(_EVERYWHERE)
    if method == "post":
        usual |= {408, 413, 415, 502, 504, 507}
    if "/result" in path or "/source" in path:
        usual.add(416)
    for status in sorted(usual):
        kinds = answers.get(str(status), {}).get("content", {})
        generated = "HTTPValidationError" in str(kinds)
        if not kinds or generated:
            answers[str(status)] = _error(status)


def _without_null(schema: Json) -> Json:
    """A field that may be null is one that may be left out."""
    schema = copy.deepcopy(schema)
    for field in schema["properties"].values():
        choices = [choice for choice in field.pop("anyOf", []) if choice.get("type") != "null"]
        if len(choices) == 1:
            field.update({**choices[0], **field})
        elif choices:
            field["anyOf"] = choices
        if "enum" in field:
            field["enum"] = [value for value in field["enum"] if value is not None]
        if field.get("default", "") is None:
            del field["default"]
    return schema


def _only(fields: Json, wanted: str, *others: str) -> Json:
    """JSON bodies: with the address or addresses."""
    schema = copy.deepcopy(fields)
    for other in others:
        schema["properties"].pop(other)
    schema["properties"] = {wanted: schema["properties"].pop(wanted), **schema["properties"]}
    schema["required"] = [wanted]
    return schema


def _with_files(fields: Json, files: Json, required: list[str]) -> Json:
    """Forms: with files in place of addresses."""
    schema = copy.deepcopy(fields)
    for name in ("take_url", "take_urls"):
        schema["properties"].pop(name, None)
    schema["properties"] = {**files, **schema["properties"]}
    schema["required"] = required
    return schema


def _file(description: str) -> Json:
    return {**_BINARY, "description": description}
