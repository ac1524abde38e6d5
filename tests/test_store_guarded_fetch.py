"""Fetching foreign addresses, from real servers on loopback that behave well, badly and worse."""

from __future__ import annotations

import base64
import contextlib
import gzip
import hashlib
import io
import random
import socket
import ssl
import time
import zlib
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest
import trustme
from http_server import Request, Running, fixed, redirect, reply, serving
from hypothesis import given, settings
from hypothesis import strategies as st

from rocktop_ray.errors import (
    FetchError,
    RocktopError,
    SettingsError,
    StorageError,
    UrlContentError,
    UrlForbiddenError,
    UrlNotFoundError,
    UrlRefusedError,
    UrlTimeoutError,
    UrlTooLargeError,
    UrlUnreachableError,
)
from rocktop_ray.store import transport
from rocktop_ray.store.guarded_fetch import Fetched, FetchPolicy, Validators, check_url, guarded_fetch

HERE = FetchPolicy(trusted=("127.0.0.1",), total_seconds=10, idle_seconds=5)
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


@pytest.fixture(scope="module")
def server() -> Iterator[Running]:
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


# who may be asked


def test_loopback_is_refused_without_trust(server: Running) -> None:
    before = len(server.requests)
    open_port = FetchPolicy(ports=frozenset({server.port}))
    for host in ("127.0.0.1", "localhost", "[::1]", "[::ffff:127.0.0.1]", "127.0.0.1.", "127。0。0。1", "0.0.0.0"):
        with pytest.raises(UrlRefusedError):
            get(server.url("/take.wav", host), open_port)
    for address in (
        "127.0.0.1",
        "::1",
        "::ffff:127.0.0.1",
        "10.0.0.1",
        "8.8.8.8 127.0.0.1",
        "169.254.169.254",
        "fe80::1%lo",
    ):
        with pytest.raises(UrlRefusedError, match="not public") as caught:
            get(server.url("/take.wav", "rebind.example.org"), replace(open_port, resolver=named(address)))
        assert not any(part in caught.value.message for part in address.split())
    assert len(server.requests) == before


def test_a_name_that_changes_its_mind_gains_nothing(server: Running) -> None:
    """The address that was checked is the one connected to: the resolver is asked once for each request."""
    calls: list[str] = []
    policy = FetchPolicy(
        ports=frozenset({server.port}), resolver=named("192.0.2.1x", "127.0.0.1", calls=calls), connect_seconds=0.3
    )
    with pytest.raises(UrlUnreachableError):  # no such address; were it asked again, it would answer loopback
        get(server.url("/take.wav", "rebind.example.org"), policy)
    assert calls == ["rebind.example.org"]
    tried: list[object] = []
    original = socket.socket.connect

    def connect(self: socket.socket, address: object) -> None:
        tried.append(address)
        raise ConnectionRefusedError

    socket.socket.connect = connect  # type: ignore[method-assign, assignment]
    try:
        with pytest.raises(UrlUnreachableError):
            get(
                server.url("/take.wav", "rebind.example.org"),
                replace(policy, resolver=named("8.8.8.8 2606:4700::1111", "127.0.0.1")),
            )
    finally:
        socket.socket.connect = original  # type: ignore[method-assign]
    assert tried == [("8.8.8.8", server.port), ("2606:4700::1111", server.port)]


@pytest.mark.parametrize(
    "location",
    [
        *("http://127.0.0.2:{port}/take.wav", "http://[::1]:{port}/", "http://localhost:{port}/", "http://2130706433/"),
        *(
            "http://169.254.169.254/latest/meta-data/",
            "//10.0.0.1/",
            "http://0.0.0.0:{port}/take.wav",
            "file:///etc/passwd",
        ),
        *(
            "gopher://127.0.0.1/",
            "data:audio/wav;base64,UklGRg==",
            "http://user:pw@127.0.0.1:{port}/take.wav",
            "http://[::1",
        ),
        *(
            "http://metadata.google.internal/",
            "http://inner.example.org:{port}/",
            "https://[fe80::1%25lo]/",
            "http://x\\@y/",
        ),
    ],
)
def test_every_redirect_is_checked(location: str) -> None:
    answers = {"/start": redirect("/next")}
    with serving({"/take.wav": fixed(WAV)}) as inner, serving(answers) as outer:
        answers["/next"] = redirect(location.format(port=inner.port))
        policy = replace(
            HERE,
            trusted=(f"127.0.0.1:{outer.port}",),
            ports=frozenset({80, 443, inner.port}),
            resolver=named("10.9.8.7"),
        )
        with pytest.raises(UrlRefusedError) as caught:
            get(outer.url("/start"), policy)
        assert outer.count("/next") == 1 and inner.requests == []
        for leak in ("10.9.8.7", "169.254", "127.0.0.2", str(inner.port), "inner.example", "etc/passwd", "pw@"):
            assert leak not in caught.value.message


def test_inner_names_are_not_even_looked_up() -> None:
    calls: list[str] = []
    for host in ("db", "vault.internal", "x.svc.cluster.local", "localhost", "printer.lan"):
        with pytest.raises(UrlRefusedError, match="not public"):
            get(f"http://{host}/", FetchPolicy(resolver=named("10.0.0.1", calls=calls)))
    assert calls == []


def test_ports() -> None:
    public = FetchPolicy(resolver=named("8.8.8.8"))
    for port in (22, 25, 6379, 9000, 65535):
        with pytest.raises(UrlRefusedError, match=f"port {port}"):
            get(f"http://example.org:{port}/", public)
    check_url("https://example.org:8443/x", public)
    with pytest.raises(UrlRefusedError, match="port 22"):
        check_url("https://example.org:22/x")


def test_trusted_name(server: Running) -> None:
    policy = replace(HERE, trusted=(f"minio.internal:{server.port}",), resolver=named("127.0.0.1"))
    assert get(server.url("/take.wav", "MINIO.internal."), policy)[0] == WAV
    assert server.requests[-1].headers["host"] == f"minio.internal:{server.port}"
    with pytest.raises(UrlRefusedError):
        get(server.url("/take.wav", "minio.internal"), replace(policy, resolver=named("169.254.169.254")))


def test_only_listed_hosts(server: Running) -> None:
    policy = replace(HERE, only=("cdn.example.org", "127.0.0.1"))
    assert get(server.url("/take.wav"), policy)[0] == WAV
    for url in ("http://example.org/", "http://8.8.8.8/", "http://x.cdn.example.org/"):
        with pytest.raises(UrlRefusedError, match="list of allowed"):
            get(url, replace(policy, resolver=named("8.8.8.8")))
    with pytest.raises(UrlRefusedError, match="list of allowed"):
        get(server.url("/take.wav"), replace(HERE, only=()))


def test_unreachable() -> None:
    with socket.create_server(("127.0.0.1", 0)) as held:
        port = held.getsockname()[1]
    with pytest.raises(UrlUnreachableError) as caught:
        get(f"http://127.0.0.1:{port}/x?secret")
    assert caught.value.retryable and "secret" not in caught.value.message

    def absent(host: str, port: int, seconds: float) -> list[str]:
        raise socket.gaierror(-2, "Name or service not known")

    with pytest.raises(UrlUnreachableError, match="no such host"):
        get("http://no.example.org/", FetchPolicy(resolver=absent))
    with pytest.raises(UrlUnreachableError, match="no such host"):
        get("http://no.example.org/", FetchPolicy(resolver=lambda *_: []))


def test_a_slow_resolver_meets_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: time.sleep(120))
    start = time.monotonic()
    with pytest.raises(UrlTimeoutError, match="looking up"):
        get("http://slow.example.org/", FetchPolicy(connect_seconds=0.2))
    assert time.monotonic() - start < 60


def test_the_system_resolver() -> None:
    assert "127.0.0.1" in transport.resolve("127.0.0.1", 80, 5)
    with pytest.raises(OSError):
        transport.resolve("a" * 70 + ".example", 80, 5)


# TLS


def test_the_certificate_must_be_that_of_the_name() -> None:
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("voices.example.org", "127.0.0.1").configure_cert(context)
    trusting = ssl.create_default_context()
    authority.configure_trust(trusting)
    answers = {"/take.wav": fixed(WAV), "/down": redirect("http://127.0.0.1/take.wav")}
    with serving(answers, tls=context) as server:
        policy = replace(HERE, tls=trusting, trusted=("127.0.0.1",), resolver=named("127.0.0.1"))
        for host in ("voices.example.org", "127.0.0.1"):
            assert get(server.url("/take.wav", host, "https"), policy)[0] == WAV
        for host, tls in (("other.example.org", trusting), ("voices.example.org", None)):
            with pytest.raises(UrlUnreachableError, match="certificate") as caught:
                get(server.url("/take.wav", host, "https"), replace(policy, tls=tls))
            assert not caught.value.retryable
        with pytest.raises(UrlRefusedError, match="from https"):
            get(server.url("/down", scheme="https"), policy)
    with serving({"*": fixed(WAV)}) as plain, pytest.raises(FetchError):
        get(plain.url("/", scheme="https"), replace(policy, connect_seconds=0.3))


def test_a_handshake_that_never_ends_meets_a_limit() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        start = time.monotonic()
        with pytest.raises(UrlTimeoutError):
            get(f"https://127.0.0.1:{silent.getsockname()[1]}/", replace(HERE, connect_seconds=0.3))
        assert time.monotonic() - start < 60


# data URLs


def test_data_urls() -> None:
    text = base64.b64encode(WAV).decode()
    for url in (
        f"data:audio/wav;base64,{text}",
        f"DATA:;base64,{text}",
        f"data:audio/wav;base64,{text.replace('=', '%3D')}",
    ):
        assert get(url, FetchPolicy(), expect="audio")[0] == WAV
    assert get("data:,a%20b", FetchPolicy())[0] == b"a b"
    check_url(f"data:audio/wav;base64,{text}")


@pytest.mark.parametrize(
    ("url", "error"),
    [
        ("data:audio/wav;base64", UrlRefusedError),
        ("data:" + "x" * 300 + ",", UrlRefusedError),
        ("data:;base64,****", UrlContentError),
        ("data:;base64,QUJ", UrlContentError),
        ("data:;base64,Ä", UrlContentError),
        ("data:;base64," + "QUJD" * 1000, UrlTooLargeError),
        ("data:," + "a" * 4000, UrlTooLargeError),
        ("data:," + "%41" * 1200, UrlTooLargeError),
    ],
)
def test_bad_data_urls(url: str, error: type[FetchError]) -> None:
    with pytest.raises(error) as caught:
        get(url, FetchPolicy(max_data_url_bytes=1000))
    assert "QUJ" not in caught.value.message


@settings(max_examples=150, deadline=None)
@given(
    st.text(max_size=60), st.sampled_from(["", "http://", "https://", "data:", "http://[", "http://127.0.0.1:1/", "//"])
)
def test_any_text_is_fetched_or_refused_with_one_clear_error(text: str, start: str) -> None:
    policy = FetchPolicy(resolver=named("127.0.0.1"))
    try:
        guarded_fetch(start + text, io.BytesIO(), policy=policy)
    except RocktopError as error:
        assert isinstance(error, FetchError) and error.message
    else:
        assert (start + text)[:5].lower() == "data:"


def test_bad_policies() -> None:
    for bad in ({"trusted": ("a b",)}, {"only": ("/",)}, {"max_bytes": 0}, {"total_seconds": -1}):
        with pytest.raises(SettingsError):
            FetchPolicy(**bad)  # type: ignore[arg-type]
