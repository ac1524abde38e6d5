"""What must not stand in a log: queries of addresses, credentials, keys, content of data URLs."""

from __future__ import annotations

import logging
import re
from typing import Any

from rocktop_ray.store.addresses import redact

HIDDEN = "***"

_ADDRESS = re.compile(r"\b(?:https?|s3|wss?)://[^\s\"'<>\\]+|\bdata:[\w.+-]+/[^\s\"'<>\\]{64,}", re.IGNORECASE)
_NAMES = (
    r"authorization|x-api-key|api[-_]?key|access[-_]?key(?:[-_]id)?|secret(?:[-_]access)?(?:[-_]key)?|session[-_]token"
)
_NAMES += r"|token|password|passwd|credential|signature|x-amz-(?:signature|credential|security-token)|cookie"
_ASSIGNED = re.compile(rf"(?i)\b((?:\w+[-_])?(?:{_NAMES})[\"']?\s*[:=]\s*[\"']?)(?:(?:bearer|basic)\s+)?[^\s\"',;&}}]+")
_BEARER = re.compile(r"(?i)\b(bearer|basic)\s+[A-Za-z0-9._~+/=-]{8,}")
_SECRET_NAME = re.compile(rf"(?i)^(?:\w+[-_])?(?:{_NAMES})$")
_DEPTH = 6
_STANDARD = frozenset(logging.makeLogRecord({}).__dict__) | {"message", "asctime", "taskName", "color_message"}


def redacted(text: str) -> str:
    """``text`` with queries and credentials of addresses, and values after names of secrets, left out."""
    text = _ADDRESS.sub(lambda found: redact(found[0]), text)
    text = _ASSIGNED.sub(rf"\1{HIDDEN}", text)
    return _BEARER.sub(rf"\1 {HIDDEN}", text)


def redacted_value(value: Any, name: str = "", depth: int = 0) -> Any:
    """The same for plain data: a value under a name of a secret is hidden as a whole."""
    if name and isinstance(value, str | bytes | int) and not isinstance(value, bool) and _SECRET_NAME.match(name):
        return HIDDEN
    if isinstance(value, str):
        return redacted(value)
    if isinstance(value, bytes):
        return f"({len(value)} bytes)"
    if isinstance(value, dict):
        if depth >= _DEPTH:
            return HIDDEN
        return {key: redacted_value(item, str(key), depth + 1) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return HIDDEN if depth >= _DEPTH else [redacted_value(item, name, depth + 1) for item in value]
    if value is None or isinstance(value, bool | int | float):
        return value
    return redacted(str(value))


def extra(record: logging.LogRecord) -> dict[str, Any]:
    """What the caller of the logger passed as ``extra``; names with an underscore in front are Ray's own marks."""
    return {key: value for key, value in record.__dict__.items() if key not in _STANDARD and not key.startswith("_")}


class Redacting(logging.Filter):
    """Takes secrets out of a record, its message, extra keys and traceback, before a handler writes it."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Never drops a record. Changes it in place: whoever sees it later must not see the secret either."""
        record.msg, record.args = redacted(record.getMessage()), None
        for key, value in extra(record).items():
            setattr(record, key, redacted_value(value, key))
        if record.exc_info and not record.exc_text:
            record.exc_text = logging.Formatter().formatException(record.exc_info)
        if record.exc_text:
            record.exc_text = redacted(record.exc_text)
        return True
