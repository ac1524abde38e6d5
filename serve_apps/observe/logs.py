"""Structured logs: one JSON object per line and event, with the request's id, without secrets.

Modules log as Python does: ``logging.getLogger(__name__).info("request", extra={"status": 200})``; what is in ``extra``
becomes keys of the line. The message names the event in a word or two, so that lines can be counted by it.
"""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any, TextIO

from serve_apps.observe.redaction import Redacting, extra

LOGGERS = ("rocktop_ray", "serve_apps", "actors")
"""The roots of our own loggers; everybody else's are left as they are."""

_request_id: ContextVar[str | None] = ContextVar("rocktop_request_id", default=None)


@contextmanager
def request(request_id: str) -> Iterator[None]:
    """Every line of this block, in this thread or task and what it starts, carries the id."""
    token = _request_id.set(request_id)
    try:
        yield
    finally:
        _request_id.reset(token)


def current_request() -> str | None:
    """The id that ``request`` set, if any."""
    return _request_id.get()


class JsonFormatter(logging.Formatter):
    """A record as one line of JSON: time (ISO 8601 UTC), level, logger, event, request_id, and what is in ``extra``."""

    def __init__(self, constant: dict[str, str] | None = None) -> None:
        """``constant``: keys that every line has, e.g. the replica."""
        super().__init__()
        self._constant = constant or {}

    def format(self, record: logging.LogRecord) -> str:
        """Values that JSON does not know are written as their ``str``."""
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "event": record.getMessage(),
            **self._constant,
        }
        if request_id := getattr(record, "request_id", None) or current_request():
            line["request_id"] = request_id
        line |= {key: value for key, value in extra(record).items() if key not in line}
        if record.exc_info or record.exc_text:
            line["traceback"] = record.exc_text or self.formatException(record.exc_info)  # type: ignore[arg-type]
        return json.dumps(line, default=str, ensure_ascii=False, allow_nan=True)


def configure_logging(level: int | str = "INFO", stream: TextIO | None = None) -> None:
    """Our loggers write JSON lines to ``stream`` (stderr); calling it again replaces what was set up before.

    In a Ray Serve replica every line names its application, deployment and replica, and Serve's own handlers stop
    writing secrets too.
    """
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(JsonFormatter(_replica()))
    handler.addFilter(Redacting())
    for name in LOGGERS:
        logger = logging.getLogger(name)
        logger.setLevel(level)
        logger.propagate = False
        for old in [old for old in logger.handlers if isinstance(old.formatter, JsonFormatter)]:
            logger.removeHandler(old)
        logger.addHandler(handler)
    for foreign in logging.getLogger("ray.serve").handlers:
        if not any(isinstance(known, Redacting) for known in foreign.filters):
            foreign.addFilter(Redacting())


def _replica() -> dict[str, str]:
    """Where this process stands in Ray Serve; empty outside."""
    if "ray.serve" not in sys.modules:
        return {}
    from ray import serve
    from ray.serve.exceptions import RayServeException

    try:
        context = serve.get_replica_context()
    except RayServeException:
        return {}
    return {
        "application": context.app_name,
        "deployment": context.deployment,
        "replica": context.replica_tag,
    }
