"""One HTTP exchange with an address that was checked before, in limits of time that a slow server cannot stretch."""

from __future__ import annotations

import http.client
import io
import ipaddress
import socket
import ssl
import threading
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, cast

from rocktop_ray.errors import FetchError, UrlTimeoutError, UrlUnreachableError
from rocktop_ray.store.addresses import Address, Target

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

_HEADERS = 256 << 10
_TRIES = 4


class Clock:
    """Time left for a fetch in all, and for one wait."""

    def __init__(self, total: float, idle: float, place: str) -> None:
        self._end = time.monotonic() + total
        self._total, self._idle, self._place = total, idle, place

    def wait(self, most: float | None = None) -> float:
        """Seconds that the next wait may take, at most ``most``. Raises UrlTimeoutError when none is left."""
        left = self._end - time.monotonic()
        if left <= 0:
            raise UrlTimeoutError(f"{self._place}: took longer than {self._total:g} s")
        return min(left, self._idle if most is None else most)

    def silent(self) -> UrlTimeoutError:
        """The error of a wait that was in vain."""
        return UrlTimeoutError(f"{self._place}: the server does not answer in time")


def resolve(host: str, port: int, seconds: float) -> list[str]:
    """Addresses of a name by the system's resolver. Raises TimeoutError, OSError (socket.gaierror)."""
    answer: list[Any] = []

    def ask() -> None:  # the system's resolver knows no time limit, so a thread waits for it
        try:
            answer.append(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM))
        except (OSError, UnicodeError) as error:
            answer.append(error)

    thread = threading.Thread(target=ask, daemon=True, name="resolve")
    thread.start()
    thread.join(seconds)
    if not answer:
        raise TimeoutError
    if isinstance(answer[0], UnicodeError):
        raise socket.gaierror("not a name")
    if isinstance(answer[0], OSError):
        raise answer[0]
    return list(dict.fromkeys(str(found[4][0]) for found in answer[0]))


def connect(
    target: Target, addresses: Sequence[Address], clock: Clock, seconds: float, tls: ssl.SSLContext | None, place: str
) -> socket.socket:
    """A connection to one of ``addresses``, the first that answers; with TLS the certificate must be ``target.host``'s.

    Names are not looked up here: what was checked is what is connected to. Raises UrlUnreachableError, UrlTimeoutError.
    """
    trouble: FetchError = UrlUnreachableError(f"{place}: cannot be reached")
    for address in addresses[:_TRIES]:
        link: socket.socket | None = None
        try:
            family = socket.AF_INET6 if isinstance(address, ipaddress.IPv6Address) else socket.AF_INET
            link = socket.socket(family, socket.SOCK_STREAM)
            link.settimeout(clock.wait(seconds))
            link.connect((str(address), target.port))
            if target.scheme == "https":
                link.settimeout(clock.wait(seconds))
                link = (tls or ssl.create_default_context()).wrap_socket(link, server_hostname=target.host)
            return link
        except ssl.SSLCertVerificationError:
            _close(link)
            raise UrlUnreachableError(
                f"{place}: the server's certificate is not valid for its name", retryable=False
            ) from None
        except TimeoutError:
            trouble = clock.silent()
        except (OSError, ValueError):
            trouble = UrlUnreachableError(f"{place}: cannot be reached")
        except FetchError:
            _close(link)
            raise
        _close(link)
    raise trouble


def _close(link: socket.socket | None) -> None:
    if link is not None:
        link.close()


class Exchange:
    """One request over an open connection: ``status``, ``headers``, then the answer's body by ``chunk``."""

    def __init__(
        self,
        link: socket.socket,
        target: Target,
        headers: Mapping[str, str],
        clock: Clock,
        place: str,
        *,
        method: Literal["GET", "POST"] = "GET",
        body: bytes = b"",
    ) -> None:
        self._link, self._place, self._clock = link, place, clock
        lines = [f"{method} {target.path} HTTP/1.1", f"Host: {target.authority}"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        self._raw = _TimedReader(link, clock)
        try:
            link.settimeout(clock.wait())
            link.sendall("\r\n".join([*lines, "Connection: close", "", ""]).encode("ascii") + body)
            self._answer = http.client.HTTPResponse(cast(socket.socket, _Readable(self._raw)), method=method)
            self._answer.begin()
        except TimeoutError:
            raise clock.silent() from None
        except (http.client.HTTPException, OSError, ValueError):
            raise self._broken() from None
        self._raw.budget = None
        self.status = self._answer.status
        self.length = None if self._answer.chunked else self._answer.length
        self._left = self.length

    def header(self, name: str) -> str:
        """A header's value in printable ASCII; empty if there is none, or if it holds anything else."""
        value = (self._answer.headers.get(name) or "").strip()
        return value if value.isascii() and value.isprintable() and len(value) < 4096 else ""

    def location(self) -> str:
        """Where a redirect leads; empty if it does not say. Raw UTF-8 and blanks are common there."""
        value = (self._answer.headers.get("Location") or "").strip().replace(" ", "%20")
        return value.encode("latin-1", "replace").decode("utf-8", "replace")

    def chunk(self, size: int) -> bytes:
        """Up to ``size`` more bytes of the body as they come, empty at its end. Raises UrlUnreachableError when the
        body ends before the length that the server said, UrlTimeoutError."""
        try:
            data = self._answer.read1(size)
        except TimeoutError:
            raise self._clock.silent() from None
        except (http.client.HTTPException, OSError, ValueError):
            raise self._broken() from None
        if self._left is not None:
            self._left -= len(data)
            if not data and self._left:
                raise UrlUnreachableError(f"{self._place}: the connection ended before the whole file was there")
        return data

    def close(self) -> None:
        """Close the connection."""
        self._answer.close()
        self._link.close()

    def _broken(self) -> UrlUnreachableError:
        return UrlUnreachableError(f"{self._place}: the connection broke, or the server does not speak HTTP")


class _TimedReader(io.RawIOBase):
    """Bytes of a socket; every single wait is limited, and so are the bytes while ``budget`` is set."""

    def __init__(self, link: socket.socket, clock: Clock) -> None:
        super().__init__()
        self._link, self._clock = link, clock
        self.budget: int | None = _HEADERS

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer) -> int:
        self._link.settimeout(self._clock.wait())
        count = self._link.recv_into(buffer)
        if self.budget is not None:
            self.budget -= count
            if self.budget < 0:
                raise ValueError("headers too long")
        return count


class _Readable:
    """As much of a socket as HTTPResponse uses."""

    def __init__(self, raw: _TimedReader) -> None:
        self._raw = raw

    def makefile(self, mode: str) -> io.BufferedReader:
        return io.BufferedReader(self._raw, 1 << 16)
