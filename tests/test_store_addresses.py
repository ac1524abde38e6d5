"""URLs and addresses: what may be opened, whatever way it is written."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rocktop_ray.errors import SettingsError, UrlRefusedError
from rocktop_ray.store.addresses import Trust, is_inner_name, is_public, parse_url, permitted, redact

PRIVATE = [
    *("0.0.0.0", "0.1.2.3", "10.0.0.1", "10.255.255.255", "100.64.0.1", "100.127.255.255", "100.100.100.200"),
    *("127.0.0.1", "127.255.255.254", "169.254.169.254", "169.254.170.2", "172.16.0.1", "172.31.255.255"),
    *("192.0.0.1", "192.0.0.192", "192.0.2.1", "192.88.99.1", "192.168.0.1", "198.18.0.1", "198.19.255.255"),
    *("198.51.100.7", "203.0.113.9", "224.0.0.1", "239.255.255.250", "240.0.0.1", "255.255.255.255", "168.63.129.16"),
    *(
        "::",
        "::1",
        "::127.0.0.1",
        "::ffff:127.0.0.1",
        "::ffff:8.8.8.8",
        "::ffff:0:127.0.0.1",
        "fe80::1",
        "fe80::1%eth0",
    ),
    *("fec0::1", "fc00::1", "fd00:ec2::254", "fd12:3456::1", "ff02::1", "64:ff9b::7f00:1", "64:ff9b::a9fe:a9fe"),
    *("64:ff9b::10.0.0.1", "64:ff9b:1::1", "100::1", "2001::1", "2001:0:4136:e378:8000:63bf:3fff:fdd2", "2001:db8::1"),
    *("2002:7f00:1::", "2002:a00:1::1", "3fff::1", "5f00::1", "4000::1", "8000::1"),
]
PUBLIC = [
    *("1.1.1.1", "8.8.8.8", "9.255.255.255", "11.0.0.0", "100.63.255.255", "100.128.0.0", "126.1.2.3", "128.0.0.1"),
    *("169.253.1.1", "172.15.0.1", "172.32.0.1", "192.0.1.1", "192.167.1.1", "198.17.1.1", "223.255.255.254"),
    *("2606:4700::1111", "2a00:1450::1", "2001:4860:4860::8888", "64:ff9b::808:808"),
]
HOST_TRICKS = [
    *("2130706433", "0x7f000001", "0x7f.0.0.1", "017700000001", "0177.0.0.1", "127.1", "127.0.1", "0", "127.0.0.1.1"),
    *(
        "127.0.0.01",
        "1.2.3.4.5",
        "256.1.1.1",
        "127.0.0.0x1",
        "0x",
        "[::1%25lo]",
        "[::1%lo]",
        "[127.0.0.1]",
        "[::1",
        "::1",
    ),
    *(
        "[v1.fe80]",
        "%31%32%37.0.0.1",
        "127.0.0.1%00.example.org",
        "a..b",
        ".a",
        "a.-b.org",
        "a-.org",
        "",
        ".",
        "..",
        "-",
    ),
    *(
        "exa mple.org",
        "exa\tmple.org",
        "exa\nmple.org",
        "example.org\\@127.0.0.1",
        "user@example.org",
        "u:p@example.org",
    ),
    *("@127.0.0.1", "example.org:0", "example.org:65536", "example.org:-1", "example.org:80:80", "example.org:٣"),
    *(
        "a" * 64 + ".org",
        ".".join(["a" * 60] * 5),
        "example.org／@127.0.0.1",
        "℀.org",
        "exa\u2028mple.org",
        "*.org",
        "a,b.org",
    ),
]
TO_LOOPBACK = ["127.0.0.1", "１２７.０.０.１", "127。0。0。1", "①②⑦.0.0.1", "127.0.0.1.", "[::1]", "[::ffff:127.0.0.1]",
               "[::ffff:7f00:1]", "[0:0:0:0:0:0:0:1]", "[64:ff9b::127.0.0.1]", "[2002:7f00:1::]"]  # fmt: skip


@pytest.mark.parametrize("text", PRIVATE)
def test_not_public(text: str) -> None:
    address = ipaddress.ip_address(text)
    assert not is_public(address)
    assert not permitted(address, parse_url("http://example.org/"), Trust())


@pytest.mark.parametrize("text", PUBLIC)
def test_public(text: str) -> None:
    assert is_public(ipaddress.ip_address(text))


@settings(max_examples=300, deadline=None)
@given(st.ip_addresses())
def test_public_is_never_wider_than_the_standard_library(
    address: ipaddress.IPv4Address | ipaddress.IPv6Address,
) -> None:
    # AS112 and a few anycast relays apart, the library's own (older) table must agree that it is a global address
    if is_public(address) and address not in ipaddress.ip_network(
        "64:ff9b::/96" if address.version == 6 else "0.0.0.0/32"
    ):
        assert address.is_global and not address.is_multicast and not address.is_reserved


@settings(max_examples=100, deadline=None)
@given(st.sampled_from(PRIVATE).filter(lambda text: "." in text and ":" not in text))
def test_an_inner_ipv4_address_in_ipv6_clothes(text: str) -> None:
    number = int(ipaddress.IPv4Address(text))
    for high in (0, 0xFFFF << 32, 0xFFFF << 48, 0x64FF9B << 96, (0x2002 << 112) | (number << 80)):
        assert not is_public(ipaddress.IPv6Address(high | number))


@pytest.mark.parametrize("host", HOST_TRICKS)
def test_odd_hosts_are_refused(host: str) -> None:
    with pytest.raises(UrlRefusedError) as caught:
        parse_url(f"http://{host}/x")
    assert "127" not in caught.value.message


@pytest.mark.parametrize("host", TO_LOOPBACK)
def test_other_spellings_of_loopback_are_seen(host: str) -> None:
    literal = parse_url(f"http://{host}/").literal
    assert literal is not None and not is_public(literal)


@pytest.mark.parametrize(
    "url",
    [
        *("file:///etc/passwd", "FILE:///etc/passwd", "ftp://example.org/", "gopher://127.0.0.1:70/_x", "dict://h/"),
        *("//example.org/x", "example.org/x", "http:/example.org", "http:example.org", "http:///x", "http://", ""),
        *(
            "javascript:alert(1)",
            "jar:http://example.org!/",
            "unix:/var/run/x.sock",
            "http+unix://x/",
            "blob:http://h/",
        ),
        *(" http://example.org/", "http://example.org/a b", "http://example.org/\r\nHost: x", "http://e.org/\x00"),
        *(
            "http://example.org/" + "a" * 9000,
            "http://[::1]extra/",
            "http://a[::1]/",
            "http://[::1]:port/",
            "http://e.org\\x",
            "ht\ntp://e.org",
        ),
    ],
)
def test_odd_urls_are_refused(url: str) -> None:
    with pytest.raises(UrlRefusedError):
        parse_url(url)


def test_canonical_parts() -> None:
    target = parse_url("HTTPS://Bücher.Example.ORG.:443/ä b?q=ü#part".replace(" ", "%20"))
    assert (target.scheme, target.host, target.port) == ("https", "xn--bcher-kva.example.org", 443)
    assert target.path == "/%C3%A4%20b?q=%C3%BC"
    assert target.authority == "xn--bcher-kva.example.org"
    assert parse_url("http://example.org:8080").authority == "example.org:8080"
    assert parse_url("http://example.org//a//b?x=//y").path == "//a//b?x=//y"
    assert parse_url("http://[2606:4700:0::1111]:81/").authority == "[2606:4700::1111]:81"


@settings(max_examples=300, deadline=None)
@given(st.text(max_size=40), st.text(max_size=20))
def test_whatever_is_accepted_is_a_clean_request(host: str, path: str) -> None:
    try:
        target = parse_url(f"http://{host}/{path}")
    except UrlRefusedError:
        return
    line = f"GET {target.path} HTTP/1.1\r\nHost: {target.authority}"
    assert line.count("\r\n") == 1 and line.isascii() and target.path.count(" ") == 0
    assert parse_url(target.url) == target


def test_trust() -> None:
    trust = Trust(("10.0.0.0/8:9000", "minio.internal", "*.svc.example:81", "[fd00::1]:80", "127.0.0.1"))
    address, url = ipaddress.ip_address, parse_url
    assert permitted(address("10.1.2.3"), url("http://x.org:9000/"), trust)
    assert not permitted(address("10.1.2.3"), url("http://x.org:9001/"), trust)
    assert permitted(address("192.168.1.1"), url("http://minio.internal:9000/"), trust)
    assert permitted(address("127.0.0.1"), url("http://minio.internal/"), trust)
    assert permitted(address("fd00::1"), url("http://[fd00::1]/"), trust)
    assert permitted(address("10.0.0.1"), url("http://a.svc.example:81/"), trust)
    assert not permitted(address("10.0.0.1"), url("http://svc.example:81/"), trust)
    assert not permitted(address("10.0.0.1"), url("http://asvc.example:81/"), trust)
    for inner in (
        "169.254.169.254",
        "0.0.0.0",
        "100.100.100.200",
        "fe80::1",
        "fd00:ec2::254",
        "64:ff9b::a9fe:a9fe",
        "::ffff:10.0.0.1",
    ):
        assert not permitted(address(inner), url("http://minio.internal/"), trust), inner
    assert not permitted(address("127.0.0.2"), url("http://127.0.0.2/"), trust)
    assert permitted(address("169.254.1.1"), url("http://x.org/"), Trust(("169.254.0.0/16",)))


@pytest.mark.parametrize("entry", ["10.0.0.1/8", "a b", "http://x", "*", "x/y", "", "a..b"])
def test_bad_trust_entries(entry: str) -> None:
    with pytest.raises(SettingsError):
        Trust((entry,))


def test_inner_names() -> None:
    assert all(
        map(
            is_inner_name, ("localhost", "a.localhost", "db", "x.internal", "x.svc", "x.svc.cluster.local", "nas.local")
        )
    )
    assert not any(map(is_inner_name, ("example.org", "internal.example.org", "localhost.example.org", "xlocal.org")))


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=60))
def test_redact_never_fails(text: str) -> None:
    shown = redact(text)
    assert len(shown) <= 200 and shown.isascii()


def test_redact() -> None:
    shown = redact("https://me:secret@example.org/a/b.wav?X-Amz-Signature=secret&b=1#secret")
    assert shown == "https://example.org/a/b.wav?..."
    assert "secret" not in redact("data:audio/wav;base64,secret") and "secret" not in redact("http://[bad?secret")
