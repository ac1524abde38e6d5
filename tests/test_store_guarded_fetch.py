"""Fetching foreign addresses: what servers answer."""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import io
import random
import time
from dataclasses import replace

import pytest
from foreign_site import DAY, HERE, WAV, get, server_fixture  # noqa: F401
from http_server import Running, reply, serving

from rocktop_ray.errors import (
    FetchError,
    StorageError,
    UrlContentError,
    UrlForbiddenError,
    UrlNotFoundError,
    UrlRefusedError,
    UrlTimeoutError,
    UrlTooLargeError,
    UrlUnreachableError,
)
from rocktop_ray.store.guarded_fetch import Fetched, Validators, guarded_fetch


def test_fetch(server: Running) -> None:
    seen: list[tuple[int, int | None]] = []
    data, fetched = get(
        server.url("/take.wav?X-Amz-Signature=s"), expect="audio", progress=lambda *now: seen.append(now)
    )
    assert data == WAV
    assert fetched == Fetched(
        True, len(WAV), hashlib.sha256(WAV).hexdigest(), "audio/wav", Validators('"one"', DAY, len(WAV))
    )
    assert seen[-1] == (len(WAV), len(WAV))
    asked = server.requests[-1].headers
    assert asked["accept-encoding"] == "identity" and asked["host"] == f"127.0.0.1:{server.port}"
    assert not {"cookie", "authorization", "referer"} & set(asked)


@pytest.mark.parametrize("path", ["/no-length", "/bad-length", "/chunked", "/gzip", "/deflate", "/to-take", "/to-utf8"])
def test_ways_to_send_a_file(server: Running, path: str) -> None:
    assert get(server.url(path), expect="audio")[0] == WAV


def test_two_gzip_members_are_one_file(server: Running) -> None:
    assert get(server.url("/gzip-twice"))[0] == WAV + WAV


def test_a_body_longer_than_said_is_cut_as_http_demands(server: Running) -> None:
    assert get(server.url("/long"))[0] == WAV[:-10]


@pytest.mark.parametrize(
    ("path", "error", "retryable"),
    [
        *[("/short", UrlUnreachableError, True), ("/chunked-short", UrlUnreachableError, True)],
        *[("/chunked-no-end", UrlUnreachableError, True), ("/chunked-bad", UrlUnreachableError, True)],
        *[("/garbage", UrlUnreachableError, True), ("/hang-up", UrlUnreachableError, True)],
        *[("/huge-head", UrlUnreachableError, True), ("/nowhere", UrlUnreachableError, False)],
        *[
            ("/gzip-short", UrlContentError, False),
            ("/gzip-bad", UrlContentError, False),
            ("/br", UrlContentError, False),
        ],
        *[("/404", UrlNotFoundError, False), ("/410", UrlNotFoundError, False), ("/absent", UrlNotFoundError, False)],
        *[(f"/{status}", UrlForbiddenError, False) for status in (401, 403, 407, 451)],
        *[(f"/{status}", UrlUnreachableError, False) for status in (204, 206, 300, 304, 400, 418)],
        *[(f"/{status}", UrlUnreachableError, True) for status in (429, 500, 503)],
        ("/504", UrlTimeoutError, True),
        *[("/loop", UrlRefusedError, False), ("/liar", UrlTooLargeError, False)],
    ],
)
def test_bad_answers(server: Running, path: str, error: type[FetchError], retryable: bool) -> None:
    with pytest.raises(error) as caught:
        get(server.url(path + "?token=secret"))
    assert type(caught.value) is error and caught.value.retryable is retryable
    assert "secret" not in caught.value.message and path in caught.value.message
    assert caught.value.stage == "download"


def test_statuses_for_users() -> None:
    expected = {UrlRefusedError: 422, UrlNotFoundError: 404, UrlForbiddenError: 403, UrlTimeoutError: 504}
    expected |= {UrlTooLargeError: 413, UrlUnreachableError: 502, UrlContentError: 422}
    assert {kind: kind.http_status for kind in expected} == expected


def test_the_limit_holds_while_the_bytes_come(server: Running) -> None:
    small = replace(HERE, max_bytes=300_000)
    for path in ("/endless", "/bomb"):
        sink = io.BytesIO()
        with pytest.raises(UrlTooLargeError):
            guarded_fetch(server.url(path), sink, policy=small)
        assert len(sink.getvalue()) <= 300_000
    assert len(get(server.url("/take.wav"), replace(HERE, max_bytes=len(WAV)))[0]) == len(WAV)
    with pytest.raises(UrlTooLargeError):
        get(server.url("/no-length"), replace(HERE, max_bytes=len(WAV) - 1))


@pytest.mark.parametrize("path", ["/slow-body", "/slow-head", "/slow-status", "/hundred", "/silent", "/stall"])
def test_slow_servers_meet_a_limit(server: Running, path: str) -> None:
    start = time.monotonic()
    with pytest.raises(UrlTimeoutError) as caught:
        get(server.url(path), replace(HERE, total_seconds=0.6, idle_seconds=0.4))
    assert time.monotonic() - start < 60  # the servers go on for 2 min or more
    assert caught.value.retryable


def test_first_bytes_decide_not_the_header(server: Running) -> None:
    for path, said in (("/html", "web page"), ("/playlist", "something else"), ("/empty", "an empty file")):
        sink = io.BytesIO()
        with pytest.raises(UrlContentError, match=said):
            guarded_fetch(server.url(path), sink, policy=HERE, expect="audio")
        assert sink.getvalue() == b""
    with pytest.raises(UrlContentError, match=r"expected a voice.*found an audio file"):
        get(server.url("/take.wav"), expect="voice")
    assert get(server.url("/empty"))[0] == b""


def test_validators(server: Running) -> None:
    known = get(server.url("/take.wav"))[1].validators
    data, fetched = get(server.url("/take.wav"), validators=known)  # this server ignores conditions
    assert not fetched.changed and data == b"" and server.requests[-1].headers["if-none-match"] == '"one"'
    assert server.requests[-1].headers["if-modified-since"] == DAY
    assert get(server.url("/take.wav"), validators=replace(known, etag='"two"'))[1].changed
    assert get(server.url("/take.wav"), validators=replace(known, length=7))[1].changed
    assert not get(server.url("/304"), validators=known)[1].changed
    assert get(server.url("/young"))[1].validators.last_modified == ""
    assert get(server.url("/split"))[1].validators.etag == ""
    with pytest.raises(UrlForbiddenError):
        get(server.url("/403"), validators=known)


def test_progress_can_stop(server: Running) -> None:
    def stop(done: int, total: int | None) -> None:
        raise InterruptedError("cancelled")

    with pytest.raises(InterruptedError, match="cancelled"):
        get(server.url("/take.wav"), progress=stop)


def test_a_sink_that_refuses(server: Running) -> None:
    class Full(io.BytesIO):
        def write(self, data: object) -> int:
            raise OSError(28, "No space left on device")

    with pytest.raises(StorageError, match="no space"):
        guarded_fetch(server.url("/take.wav"), Full(), policy=HERE)


MUTATIONS = [
    *(
        b"\r\n",
        b"\n",
        b"\0",
        b"-1",
        b"f" * 20,
        b" ",
        b":",
        b"\xff\xfe",
        b"HTTP/9.9",
        b"100 Continue\r\n\r\n",
        b"A" * 70000,
    ),
    *(
        b"Content-Length: 99\r\n",
        b"Transfer-Encoding: chunked\r\n",
        b"Content-Encoding: deflate\r\n",
        b"X: y\r\n" * 120,
    ),
    *(b"Location: http://[::1\r\n", b"Location: //@:80\r\n"),
]


def test_broken_answers_give_one_clear_error() -> None:
    """Answers with random damage (seeded): a file, or a FetchError, never anything else and never a hang."""
    draw = random.Random(1)
    sound = [
        *(reply(WAV[:100], ETag='"a"'), reply(gzip.compress(WAV), Content_Encoding="gzip"), b"HTTP/1.0 200\r\n\r\nabc"),
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        reply(b"", status="302 Found", Location="/next"),
    ]
    now = [b""]
    policy = replace(HERE, total_seconds=2, max_bytes=50_000)
    with serving({"*": lambda link, _: link.sendall(now[0])}) as broken:
        for _ in range(400):
            answer = bytearray(draw.choice(sound))
            for _ in range(draw.randint(1, 4)):
                place = draw.randrange(len(answer) + 1)
                answer[place : place + draw.choice((0, 0, 1, 10))] = draw.choice([*MUTATIONS, b""])
            now[0] = bytes(answer)
            with contextlib.suppress(FetchError):
                get(broken.url("/x"), policy, expect=draw.choice([None, "audio"]))
