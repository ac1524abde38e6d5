"""Forms as they come in over the wire (RFC 7578): part by part, byte by byte, nothing kept."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import dataclass

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from serve_apps.gateway.refusals import BadRequestError


@dataclass(frozen=True)
class PartBegin:
    """A part begins."""

    name: str
    filename: str | None
    """As the client says it; None for a plain field."""


@dataclass(frozen=True)
class PartData:
    """Its next bytes."""

    data: bytes


@dataclass(frozen=True)
class PartEnd:
    """It is complete."""


Piece = PartBegin | PartData | PartEnd


async def read_multipart(content_type: str, body: AsyncIterator[bytes]) -> AsyncGenerator[Piece, None]:
    """The parts of a ``multipart/form-data`` body, in order.

    Raises BadRequestError when it is not one, is damaged, or ends before its last boundary.
    """
    reader = _Reader(_boundary(content_type))
    async for chunk in body:
        for piece in reader.feed(chunk):
            yield piece
    if not reader.ended:
        raise BadRequestError("the form ends before its last boundary: it was cut short")


def _boundary(content_type: str) -> bytes:
    boundary = parse_options_header(content_type)[1].get(b"boundary", b"")
    if not boundary:
        raise BadRequestError("the Content-Type of a form names its boundary; let your HTTP client set that header")
    return boundary


class _Reader:
    """Turns the parser's calls into a list."""

    def __init__(self, boundary: bytes) -> None:
        self._pieces: list[Piece] = []
        self._field, self._value = bytearray(), bytearray()
        self._headers: dict[bytes, bytes] = {}
        self.ended = False
        calls = {
            "on_part_begin": self._headers.clear,
            "on_part_data": self._on_data,
            "on_part_end": lambda: self._pieces.append(PartEnd()),
            "on_header_field": lambda data, start, end: self._field.extend(data[start:end]),
            "on_header_value": lambda data, start, end: self._value.extend(data[start:end]),
            "on_header_end": self._on_header,
            "on_headers_finished": self._on_headers,
            "on_end": self._on_end,
        }
        try:
            self._parser = MultipartParser(boundary, calls)  # type: ignore[arg-type]
        except FormParserError as error:
            raise BadRequestError(f"the form's boundary cannot be used: {error}") from error

    def feed(self, chunk: bytes) -> list[Piece]:
        """What the chunk completes."""
        if self.ended:
            return []  # what follows the last boundary is to be passed over
        try:
            self._parser.write(chunk)
        except FormParserError as error:
            raise BadRequestError(f"the form is damaged: {str(error)[:200]}") from error
        pieces, self._pieces = self._pieces, []
        return pieces

    def _on_data(self, data: bytes, start: int, end: int) -> None:
        if end > start:
            self._pieces.append(PartData(bytes(data[start:end])))

    def _on_header(self) -> None:
        self._headers[bytes(self._field).lower()] = bytes(self._value)
        self._field.clear()
        self._value.clear()

    def _on_headers(self) -> None:
        kind, options = parse_options_header(self._headers.get(b"content-disposition", b"").decode("latin-1"))
        if kind != b"form-data" or b"name" not in options:
            raise BadRequestError("a part of the form has no name (Content-Disposition: form-data; name=...)")
        filename = options.get(b"filename")
        self._pieces.append(PartBegin(_text(options[b"name"]), None if filename is None else _text(filename)))

    def _on_end(self) -> None:
        self.ended = True


def _text(data: bytes) -> str:
    return data.decode("utf-8", "replace")
