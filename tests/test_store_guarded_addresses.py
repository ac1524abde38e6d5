"""Fetching foreign addresses: who may be asked, and TLS."""

from __future__ import annotations

import socket
import ssl
import time
from dataclasses import replace

import pytest
import trustme
from foreign_site import HERE, WAV, get, named, server_fixture  # noqa: F401
from http_server import Running, fixed, redirect, serving

from rocktop_ray.errors import FetchError, UrlRefusedError, UrlTimeoutError, UrlUnreachableError
from rocktop_ray.store import transport
from rocktop_ray.store.guarded_fetch import FetchPolicy, check_url

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
