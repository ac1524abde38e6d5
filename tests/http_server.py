"""Small servers for tests: each path answers with what a function writes to the socket, however wrong."""

from __future__ import annotations

import contextlib
import socket
import socketserver
import ssl
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Request:
    path: str
    headers: Mapping[str, str]
    method: str = "GET"


Answer = Callable[[socket.socket, Request], None]


@dataclass
class Running:
    port: int
    answers: dict[str, Answer]
    requests: list[Request] = field(default_factory=list)

    def url(self, path: str, host: str = "127.0.0.1", scheme: str = "http") -> str:
        return f"{scheme}://{host}:{self.port}{path}"

    def count(self, path: str) -> int:
        return sum(request.path.partition("?")[0] == path for request in self.requests)


@contextmanager
def serving(
    answers: dict[str, Answer], *, tls: ssl.SSLContext | None = None, host: str = "127.0.0.1"
) -> Iterator[Running]:
    """Serve ``answers`` by path (without the query; ``*``: any other path) on a free loopback port."""
    running = Running(0, answers)

    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            link = self.request
            with contextlib.suppress(OSError, ValueError):
                if tls is not None:
                    link = tls.wrap_socket(link, server_side=True)
                link.settimeout(20)
                request = _read(link)
                if request is None:
                    return
                running.requests.append(request)
                answer = answers.get(request.path.partition("?")[0]) or answers.get("*")
                if answer is None:
                    link.sendall(reply(b"", status="404 Not Found"))
                else:
                    answer(link, request)
                with contextlib.suppress(OSError):
                    link.shutdown(socket.SHUT_WR)
                if tls is not None:
                    link.close()

    class Server(socketserver.ThreadingTCPServer):
        daemon_threads = True
        block_on_close = False
        allow_reuse_address = True
        request_queue_size = 64
        address_family = socket.AF_INET6 if ":" in host else socket.AF_INET

    with Server((host, 0), Handler) as server:
        running.port = server.server_address[1]
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        thread.start()
        try:
            yield running
        finally:
            server.shutdown()
            thread.join()


def reply(body: bytes, *, status: str = "200 OK", length: int | None = None, **headers: str) -> bytes:
    """A whole answer; ``length`` lies about the body, -1 leaves it out. Header names: ``_`` for ``-``."""
    lines = [f"HTTP/1.1 {status}", "Connection: close"]
    if length != -1:
        lines.append(f"Content-Length: {len(body) if length is None else length}")
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + body


def fixed(body: bytes, **how: object) -> Answer:
    """Always the same answer."""
    return lambda link, request: link.sendall(reply(body, **how))  # type: ignore[arg-type]


def redirect(location: str, status: str = "302 Found") -> Answer:
    """Lead elsewhere."""
    return lambda link, request: link.sendall(reply(b"", status=status, Location=location))


def conditional(body: Callable[[], bytes], etag: Callable[[], str]) -> Answer:
    """A server that knows ETags."""

    def answer(link: socket.socket, request: Request) -> None:
        if request.headers.get("if-none-match") == etag():
            link.sendall(reply(b"", status="304 Not Modified", length=-1, ETag=etag()))
        else:
            link.sendall(reply(body(), ETag=etag()))

    return answer


def _read(link: socket.socket) -> Request | None:
    data = b""
    while b"\r\n\r\n" not in data:
        more = link.recv(65536)
        if not more:
            return None
        data += more
    head, _, rest = data.partition(b"\r\n\r\n")
    lines = head.decode("latin-1").split("\r\n")
    method, path, _ = lines[0].split(" ", 2)
    headers = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:])}
    if headers.get("expect"):
        link.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
    left = int(headers.get("content-length", 0)) - len(rest)
    while left > 0:
        left -= len(link.recv(min(left, 1 << 20)) or b"x" * left)
    return Request(path, headers, method)
