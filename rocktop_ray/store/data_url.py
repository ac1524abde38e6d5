"""Addresses that carry their content (RFC 2397): ``data:audio/wav;base64,...``."""

from __future__ import annotations

import base64
import binascii
import re
from urllib.parse import unquote_to_bytes

from rocktop_ray.errors import UrlContentError, UrlRefusedError, UrlTooLargeError


def check_data_url(url: str, most: int) -> tuple[str, bool, int]:
    """Media type, whether base64, and where the data starts. The size is checked before anything is decoded.

    Raises UrlRefusedError, UrlTooLargeError.
    """
    match = re.match(r"data:([^,]{0,256}),", url, re.IGNORECASE)
    if not match:
        raise UrlRefusedError("the data URL is not well formed; write data:audio/wav;base64,...")
    encoded = match[1].lower().endswith(";base64")
    least = (len(url) - match.end()) * 3 // 4 if encoded else (len(url) - match.end()) // 3
    if least > most + 3:
        raise UrlTooLargeError(f"the data URL holds more than {most} bytes")
    return match[1].removesuffix(";base64"), encoded, match.end()


def read_data_url(url: str, most: int) -> tuple[str, bytes]:
    """Media type and content. Raises UrlRefusedError, UrlTooLargeError, UrlContentError."""
    kind, encoded, start = check_data_url(url, most)
    try:
        data = unquote_to_bytes(url[start:])
        if encoded:
            data = base64.b64decode(re.sub(rb"[ \t\r\n]", b"", data), validate=True)
    except (binascii.Error, ValueError, UnicodeError):
        raise UrlContentError("the data URL is not valid base64") from None
    if len(data) > most:
        raise UrlTooLargeError(f"the data URL holds {len(data)} bytes, more than {most}")
    return kind, data
