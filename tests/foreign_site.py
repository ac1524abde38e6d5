"""A server on loopback that behaves well, badly and worse, for tests of fetching."""

from __future__ import annotations

import gzip
import io
import socket
import time
import zlib
from collections.abc import Callable, Iterator

import pytest
from http_server import Request, Running, fixed, redirect, reply, serving

from rocktop_ray.store.guarded_fetch import Fetched, FetchPolicy, guarded_fetch

HERE = FetchPolicy(trusted=("127.0.0.1",), total_seconds=60, idle_seconds=30)
WAV = b"RIFF\x24\x00\x00\x00WAVEfmt " + bytes(2000)
DAY = "Sat, 21 Nov 2020 10:00:00 GMT"


def get(url: str, policy: FetchPolicy = HERE, **how: object) -> tuple[bytes, Fetched]:
    sink = io.BytesIO()
    fetched = guarded_fetch(url, sink, policy=policy, **how)  # type: ignore[arg-type]
    return sink.getvalue(), fetched


def named(*addresses: str, calls: list[str] | None = None) -> Callable[[str, int, float], list[str]]:
    """A resolver that knows one answer, and then another: a name that changes its mind."""
    answers = list(addresses)

    def resolver(host: str, port: int, seconds: float) -> list[str]:
        if calls is not None:
            calls.append(host)
        return (answers.pop(0) if len(answers) > 1 else answers[0]).split()

    return resolver


def trickle(piece: bytes, count: int, pause: float) -> Callable[[socket.socket, Request], None]:
    def answer(link: socket.socket, request: Request) -> None:
        for _ in range(count):
            link.sendall(piece)
            time.sleep(pause)

    return answer


def then_trickle(start: bytes, piece: bytes, pause: float = 0.05) -> Callable[[socket.socket, Request], None]:
    def answer(link: socket.socket, request: Request) -> None:
        link.sendall(start)
        trickle(piece, 400, pause)(link, request)

    return answer


@pytest.fixture(name="server", scope="module")
def server_fixture() -> Iterator[Running]:
    chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    zipped = gzip.compress(WAV)
    answers = {
        "/take.wav": fixed(
            WAV, Content_Type="audio/wav", ETag='"one"', Last_Modified=DAY, Date="Sat, 21 Nov 2020 11:00:00 GMT"
        ),
        "/young": fixed(WAV, Last_Modified=DAY, Date="Sat, 21 Nov 2020 10:00:01 GMT"),
        "/empty": fixed(b""),
        "/html": fixed(b"<!DOCTYPE html><html>sign in</html>", Content_Type="audio/wav"),
        "/playlist": fixed(b"#EXTM3U\nfile:///etc/passwd\n", Content_Type="audio/wav"),
        "/no-length": fixed(WAV, length=-1),
        "/short": fixed(WAV, length=len(WAV) + 10),
        "/long": fixed(WAV, length=len(WAV) - 10),
        "/bad-length": fixed(WAV, length="many"),
        "/liar": fixed(WAV, length=1 << 40),
        "/chunked": lambda link, _: link.sendall(chunked + b"%x\r\n%s\r\n0\r\n\r\n" % (len(WAV), WAV)),
        "/chunked-short": lambda link, _: link.sendall(chunked + b"%x\r\n%s" % (len(WAV) + 5, WAV)),
        "/chunked-no-end": lambda link, _: link.sendall(chunked + b"%x\r\n%s\r\n" % (len(WAV), WAV)),
        "/chunked-bad": lambda link, _: link.sendall(chunked + b"zz\r\n" + WAV),
        "/gzip": fixed(zipped, Content_Encoding="gzip"),
        "/deflate": fixed(zlib.compress(WAV), Content_Encoding="deflate"),
        "/gzip-twice": fixed(zipped + zipped, Content_Encoding="gzip"),
        "/gzip-short": fixed(zipped[:-12], Content_Encoding="gzip"),
        "/gzip-bad": fixed(b"not gzip at all", Content_Encoding="gzip"),
        "/bomb": fixed(gzip.compress(bytes(30 << 20)), Content_Encoding="gzip"),
        "/br": fixed(WAV, Content_Encoding="br"),
        "/endless": then_trickle(reply(b"", length=-1), bytes(1 << 16), 0.0),
        "/slow-body": then_trickle(reply(b"", length=10_000), b"x"),
        "/slow-head": then_trickle(b"HTTP/1.1 200 OK\r\nX-", b"a"),
        "/slow-status": then_trickle(b"HTTP/1.1 200 ", b"O"),
        "/hundred": then_trickle(b"", b"HTTP/1.1 100 Continue\r\n\r\n", 0.01),
        "/huge-head": then_trickle(b"HTTP/1.1 200 OK\r\n", b"X-A: " + b"a" * 30_000 + b"\r\n", 0.0),
        "/silent": lambda link, _: time.sleep(120),
        "/stall": lambda link, _: (link.sendall(reply(b"x", length=100)), time.sleep(120)),
        "/garbage": lambda link, _: link.sendall(b"SSH-2.0-OpenSSH_9.2\r\n"),
        "/hang-up": lambda link, _: None,
        "/loop": redirect("/loop"),
        "/to-take": redirect("take.wav?a=1"),
        "/to-utf8": lambda link, _: link.sendall(
            b"HTTP/1.1 307 T\r\nLocation: /\xc3\xbc b\r\nContent-Length: 0\r\n\r\n"
        ),
        "/%C3%BC%20b": fixed(WAV),
        "/nowhere": redirect(""),
        "/split": fixed(WAV, ETag='"a"\tb\x7f'),
    }
    for status in (
        "204 No Content",
        "206 Partial Content",
        "304 Not Modified",
        "401 No",
        "403 No",
        "404 No",
        "410 Gone",
    ):
        answers["/" + status[:3]] = fixed(b"secret inside", status=status)
    for status in (
        "300 Many",
        "400 Bad",
        "407 Proxy",
        "418 Tea",
        "429 Slow",
        "451 Law",
        "500 Oh",
        "503 Busy",
        "504 Late",
    ):
        answers["/" + status[:3]] = fixed(b"secret inside", status=status)
    with serving(answers) as running:  # type: ignore[arg-type]
        yield running
