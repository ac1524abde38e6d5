"""Fetch a file from an address that a stranger gave, without becoming the stranger's hand inside the network.

Scheme, port, and every address of every host on the way are checked; the connection goes to the very address that was
checked, so a name that changes its mind (DNS rebinding) gains nothing. Bytes, time and redirects are limited while
they happen. Proxies of the environment are not used: they would do the looking up.
"""

from __future__ import annotations

import contextlib
import hashlib
import ipaddress
import ssl
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import BinaryIO
from urllib.parse import urljoin

from rocktop_ray.errors import (
    FetchError,
    SettingsError,
    UrlContentError,
    UrlForbiddenError,
    UrlNotFoundError,
    UrlRefusedError,
    UrlTimeoutError,
    UrlTooLargeError,
    UrlUnreachableError,
    storage_errors,
)
from rocktop_ray.store.addresses import Address, Target, Trust, is_inner_name, parse_url, permitted, redact
from rocktop_ray.store.data_url import check_data_url, read_data_url
from rocktop_ray.store.sniff import HEAD, Kind, require
from rocktop_ray.store.transport import Clock, Exchange, connect, resolve

Progress = Callable[[int, int | None], None]
"""Called with bytes so far and bytes in all (None: unknown). What it raises stops the fetch."""
Resolver = Callable[[str, int, float], Sequence[str]]

_CHUNK = 1 << 16
_REDIRECTS = {301, 302, 303, 307, 308}


@dataclass(frozen=True)
class FetchPolicy:
    """What may be fetched. Raises SettingsError on a bad entry."""

    max_bytes: int = 512 << 20
    """After decompression."""
    max_data_url_bytes: int = 32 << 20
    total_seconds: float = 120.0
    idle_seconds: float = 15.0
    """Longest silence."""
    connect_seconds: float = 5.0
    """For each of: looking up, connecting, TLS."""
    redirects: int = 5
    ports: frozenset[int] = frozenset({80, 443, 8080, 8443})
    """Trusted hosts and networks may use others."""
    trusted: tuple[str, ...] = ()
    """Inner hosts and networks that may be opened; see ``addresses.Trust``."""
    only: tuple[str, ...] | None = None
    """If set: no others than these hosts and networks, in the same notation."""
    tls: ssl.SSLContext | None = None
    """Certificates to believe; None: the system's."""
    resolver: Resolver = resolve

    def __post_init__(self) -> None:
        Trust(self.trusted)
        Trust(self.only or ())
        for name in ("max_bytes", "max_data_url_bytes", "total_seconds", "idle_seconds", "connect_seconds"):
            if getattr(self, name) <= 0:
                raise SettingsError(f"{name} must be above 0", stage="store")


@dataclass(frozen=True)
class Validators:
    """What a server said about the version of a file that is already here."""

    etag: str = ""
    last_modified: str = ""
    """Empty if the file was so young that it could change again within the same second."""
    length: int | None = None
    """Bytes that the server announced; None if it did not."""


@dataclass(frozen=True)
class Fetched:
    """A finished fetch."""

    changed: bool
    """False: the server still has the version of the given validators, nothing was written."""
    bytes: int
    sha256: str
    content_type: str
    """As the server says it: not to be believed."""
    validators: Validators


def guarded_fetch(
    url: str,
    sink: BinaryIO,
    *,
    policy: FetchPolicy | None = None,
    expect: Kind | None = None,
    validators: Validators | None = None,
    progress: Progress | None = None,
) -> Fetched:
    """Write the file behind ``url`` (http, https or data) into ``sink`` and return its facts.

    expect: refuse, by its first bytes and before anything is written, what is not of this kind.
    validators: ask only for another version than this one.

    Raises a FetchError: UrlRefusedError, UrlNotFoundError, UrlForbiddenError, UrlTimeoutError, UrlTooLargeError,
    UrlContentError, UrlUnreachableError; StorageError if ``sink`` refuses. Messages name the given address without its
    query, never an inner address or where redirects lead. On an error ``sink`` may hold a part.
    """
    policy = policy or FetchPolicy()
    if not isinstance(url, str):
        raise UrlRefusedError("a URL is a text")
    place = redact(url)
    writer = _Writer(sink, policy.max_bytes, expect, place, progress)
    if url[:5].lower() == "data:":
        kind, data = read_data_url(url, min(policy.max_data_url_bytes, policy.max_bytes))
        writer.total = len(data)
        writer.add(data)
        return writer.finish(kind, Validators())
    clock = Clock(policy.total_seconds, policy.idle_seconds, place)
    with _open(url, policy, validators or Validators(), clock, place) as exchange:
        found = _validators(exchange)
        kind = exchange.header("Content-Type")
        if validators and (exchange.status == 304 or (exchange.status == 200 and _same(validators, found))):
            return Fetched(False, 0, "", kind, validators)
        if exchange.status != 200:
            raise _refusal(exchange.status, place)
        if exchange.length is not None and exchange.length > policy.max_bytes:
            raise UrlTooLargeError(f"{place}: {exchange.length} bytes are more than the limit of {policy.max_bytes}")
        writer.total = exchange.length if not exchange.header("Content-Encoding") else None
        for chunk in _decoded(exchange, place):
            writer.add(chunk)
        return writer.finish(kind, found)


def check_url(url: str, policy: FetchPolicy | None = None) -> None:
    """Refuse early what ``guarded_fetch`` would refuse without asking anybody. Raises UrlRefusedError,
    UrlTooLargeError."""
    policy = policy or FetchPolicy()
    if isinstance(url, str) and url[:5].lower() == "data:":
        check_data_url(url, min(policy.max_data_url_bytes, policy.max_bytes))
        return
    target = parse_url(url)
    literal = target.literal
    _check(target, [literal] if literal is not None else [], policy, redact(url))


@contextlib.contextmanager
def _open(url: str, policy: FetchPolicy, known: Validators, clock: Clock, place: str) -> Iterator[Exchange]:
    """Follow redirects to an answer that is none."""
    headers = {"User-Agent": "rocktop", "Accept": "*/*", "Accept-Encoding": "identity"}
    for name, value in (("If-None-Match", known.etag), ("If-Modified-Since", known.last_modified)):
        if value and value.isascii() and value.isprintable():
            headers[name] = value
    for hop in range(policy.redirects + 1):
        target = parse_url(url)
        addresses = look_up(target, policy, clock, place if not hop else f"{place} (after a redirect)")
        link = connect(target, addresses, clock, policy.connect_seconds, policy.tls, place)
        with contextlib.closing(link):
            exchange = Exchange(link, target, headers, clock, place)
            with contextlib.closing(exchange):
                if exchange.status not in _REDIRECTS:
                    yield exchange
                    return
                url = _next(exchange, target, place)
    raise UrlRefusedError(f"{place}: more than {policy.redirects} redirects")


def _next(exchange: Exchange, target: Target, place: str) -> str:
    location = exchange.location()
    if not location:
        raise UrlUnreachableError(f"{place}: a redirect that leads nowhere", retryable=False)
    try:
        url = urljoin(target.url, location)
    except ValueError:
        raise UrlRefusedError(f"{place}: a redirect to an address that is not well formed") from None
    if target.scheme == "https" and not url.lower().startswith("https:"):
        raise UrlRefusedError(f"{place}: a redirect from https to another scheme")
    return url


def look_up(target: Target, policy: FetchPolicy, clock: Clock, place: str) -> list[Address]:
    """The addresses of a host, every one checked. Raises UrlRefusedError, UrlUnreachableError, UrlTimeoutError."""
    literal = target.literal
    if literal is not None:
        _check(target, [literal], policy, place)
        return [literal]
    _check(target, [], policy, place)
    try:
        found = policy.resolver(target.host, target.port, clock.wait(policy.connect_seconds))
        addresses = [ipaddress.ip_address(text) for text in found]
    except TimeoutError:
        raise UrlTimeoutError(f"{place}: looking up the host took too long") from None
    except (OSError, ValueError):
        raise UrlUnreachableError(f"{place}: cannot be reached (no such host)") from None
    if not addresses:
        raise UrlUnreachableError(f"{place}: cannot be reached (no such host)")
    _check(target, addresses, policy, place)
    return addresses


def _check(target: Target, addresses: Sequence[Address], policy: FetchPolicy, place: str) -> None:
    """Raise UrlRefusedError unless host, port and all addresses are permitted. No addresses: before looking up."""
    trust, only = Trust(policy.trusted), Trust(policy.only or ())
    named = trust.name(target.host, target.port)
    listed = only.name(target.host, target.port) or all(only.address(address, target.port) for address in addresses)
    if policy.only is not None and not listed:
        raise UrlRefusedError(f"{place}: the host is not on the list of allowed hosts")
    if target.literal is None and is_inner_name(target.host) and not named:
        raise UrlRefusedError(f"{place}: leads to a host that is not public")
    if not all(permitted(address, target, trust) for address in addresses):
        raise UrlRefusedError(f"{place}: leads to a host that is not public")
    trusted = named or (bool(addresses) and all(trust.address(address, target.port) for address in addresses))
    if target.port not in policy.ports and not trusted and (addresses or not policy.trusted):
        raise UrlRefusedError(f"{place}: port {target.port} is not allowed")


class _Writer:
    """Counts, hashes, looks at the first bytes, passes on."""

    def __init__(self, sink: BinaryIO, most: int, expect: Kind | None, place: str, progress: Progress | None) -> None:
        self._sink, self._most, self._expect, self._place, self._progress = sink, most, expect, place, progress
        self._head = b""
        self._looking = expect is not None
        self._digest = hashlib.sha256()
        self.count = 0
        self.total: int | None = None

    def add(self, data: bytes) -> None:
        self.count += len(data)
        if self.count > self._most:
            raise UrlTooLargeError(f"{self._place}: more than the limit of {self._most} bytes")
        if self._looking:
            self._head += data
            if len(self._head) < HEAD:
                return
            data = self._looked()
        self._write(data)

    def finish(self, content_type: str, found: Validators) -> Fetched:
        if self._looking:
            self._write(self._looked())
        return Fetched(True, self.count, self._digest.hexdigest(), content_type, found)

    def _looked(self) -> bytes:
        self._looking = False
        if self._expect is not None:
            require(self._expect, self._head, self._place)
        return self._head

    def _write(self, data: bytes) -> None:
        self._digest.update(data)
        with storage_errors("the download"):
            self._sink.write(data)
        if self._progress:
            self._progress(self.count, self.total)


def _decoded(exchange: Exchange, place: str) -> Iterator[bytes]:
    """The body, decompressed in bounded pieces if the server compressed it although it was asked not to."""
    coding = exchange.header("Content-Encoding").lower()
    if coding in ("", "identity"):
        while chunk := exchange.chunk(_CHUNK):
            yield chunk
        return
    if coding not in ("gzip", "x-gzip", "deflate"):
        raise UrlContentError(f"{place}: the server compresses the file in a way that is not supported")
    inflate = zlib.decompressobj(47)
    try:
        while chunk := exchange.chunk(_CHUNK):
            while chunk:
                yield inflate.decompress(chunk, _CHUNK)
                chunk = inflate.unconsumed_tail or inflate.unused_data
                if inflate.eof and chunk:
                    inflate = zlib.decompressobj(47)
        while not inflate.eof and (rest := inflate.decompress(b"", _CHUNK)):
            yield rest
    except zlib.error:
        raise UrlContentError(f"{place}: the compressed file is damaged") from None
    if not inflate.eof:
        raise UrlContentError(f"{place}: the compressed file is cut short")


def _validators(exchange: Exchange) -> Validators:
    modified = exchange.header("Last-Modified")
    if modified and not _settled(modified, exchange.header("Date")):
        modified = ""
    return Validators(exchange.header("ETag"), modified, exchange.length)


def _settled(modified: str, date: str) -> bool:
    """Whether a second passed since the change: within it, the file may change again under the same time (RFC 9110)."""
    try:
        return (parsedate_to_datetime(date) - parsedate_to_datetime(modified)).total_seconds() >= 2
    except (ValueError, TypeError):
        return False


def _same(known: Validators, found: Validators) -> bool:
    """Whether a full answer is the known version: some servers ignore conditions. A weak ETag (W/) proves nothing."""
    if known.length is None or known.length != found.length:
        return False
    if known.etag or found.etag:
        return known.etag == found.etag and not known.etag.startswith("W/")
    return bool(known.last_modified) and known.last_modified == found.last_modified


def _refusal(status: int, place: str) -> FetchError:
    said = f"(the server answers {status})"
    if status in (404, 410):
        return UrlNotFoundError(f"{place}: nothing there {said}")
    if status in (401, 403, 407, 451):
        return UrlForbiddenError(f"{place}: access refused {said}; a signed link may have run out")
    if status in (408, 504):
        return UrlTimeoutError(f"{place}: the server was too slow {said}")
    return UrlUnreachableError(f"{place}: no file {said}", retryable=status >= 500 or status in (425, 429))
