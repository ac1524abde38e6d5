"""Which foreign addresses may be opened: the text of a URL, and the network addresses behind its host.

Pure functions; ``guarded_fetch`` opens connections by them. The ranges follow the IANA registries of special-purpose
addresses (RFC 6890 and its updates).
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable
from dataclasses import dataclass
from urllib.parse import quote, urlsplit, urlunsplit

from rocktop_ray.errors import SettingsError, UrlRefusedError

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

MAX_URL = 8192
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
_PUBLIC6 = ipaddress.IPv6Network("2000::/3")
_SPECIAL = tuple(
    ipaddress.ip_network(text)
    for text in (
        *("0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12"),
        *("192.0.0.0/24", "192.0.2.0/24", "192.88.99.0/24", "192.168.0.0/16", "198.18.0.0/15", "198.51.100.0/24"),
        *("203.0.113.0/24", "224.0.0.0/4", "240.0.0.0/4"),
        "168.63.129.16/32",  # Azure's own services, in a public range
        *("2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20"),  # the rest of IPv6 is special outside 2000::/3
    )
)
_UNREACHABLE_BY_NAME = tuple(
    ipaddress.ip_network(text)
    for text in ("0.0.0.0/8", "169.254.0.0/16", "100.100.100.200/32", "192.0.0.0/24", "168.63.129.16/32")
) + tuple(ipaddress.ip_network(text) for text in ("224.0.0.0/3", "::/128", "fe80::/10", "ff00::/8", "fd00:ec2::/32"))
"""Metadata services, link-local, multicast, reserved: trusting a host's name does not open these."""
_INNER_NAMES = (
    "localhost",
    "local",
    "internal",
    "intranet",
    "lan",
    "corp",
    "home",
    "home.arpa",
    "svc",
    "cluster.local",
)
_LABEL = re.compile(r"(?!-)[a-z0-9_-]{1,63}(?<!-)")


@dataclass(frozen=True)
class Target:
    """A checked URL, in the parts that a request needs."""

    scheme: str
    host: str
    """Lower case ASCII name without a dot at its end, or a canonical address without brackets."""
    port: int
    path: str
    """Path and query, as sent."""

    @property
    def authority(self) -> str:
        """The Host header."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == _PORTS[self.scheme] else f"{host}:{self.port}"

    @property
    def url(self) -> str:
        """The whole URL, with its query: not to be shown (see ``redact``)."""
        return f"{self.scheme}://{self.authority}{self.path}"

    @property
    def literal(self) -> Address | None:
        """The host as an address, None if it is a name."""
        try:
            return ipaddress.ip_address(self.host)
        except ValueError:
            return None


_PORTS = {"http": 80, "https": 443}


class Trust:
    """Hosts and networks of a private deployment that may be opened although they are not public.

    Entries: ``name``, ``*.name``, an address or a network, each with an optional ``:port`` (IPv6 in brackets then).
    A trusted name may resolve to private and loopback addresses, never to link-local, multicast or metadata ones; a
    trusted network means all of its addresses. Without a port, every port. Raises SettingsError on a bad entry.
    """

    def __init__(self, entries: Iterable[str] = ()) -> None:
        self._names: list[tuple[str, int | None]] = []
        self._networks: list[tuple[Network, int | None]] = []
        for entry in entries:
            host, port = _split_entry(entry)
            try:
                self._networks.append((ipaddress.ip_network(host), port))
            except ValueError:
                name = host.lower().rstrip(".")
                if not all(_LABEL.fullmatch(label) for label in name.removeprefix("*.").split(".")):
                    raise SettingsError(f"not a host or network to trust: {entry[:80]!a}", stage="store") from None
                self._names.append((name, port))

    def name(self, host: str, port: int) -> bool:
        """Whether a host's name is trusted."""
        return any(
            known in (None, port) and (host == name or (name.startswith("*.") and host.endswith(name[1:])))
            for name, known in self._names
        )

    def address(self, address: Address, port: int) -> bool:
        """Whether an address is in a trusted network."""
        return any(known in (None, port) and _within(address, network) for network, known in self._networks)


def parse_url(url: str) -> Target:
    """A URL of http or https in canonical parts. Raises UrlRefusedError, which shows nothing of the URL's secrets.

    Refused: other schemes, credentials before the host, white space, control characters and backslashes, hosts that are
    empty, percent-encoded, zoned, or numbers in another form than a.b.c.d. Unicode names become their IDNA form.
    """
    if not isinstance(url, str) or not 1 <= len(url) <= MAX_URL:
        raise UrlRefusedError(f"a URL must have 1 to {MAX_URL} characters")
    if re.search(r"[\x00-\x20\x7f-\xa0\\\u2028\u2029\ud800-\udfff]", url):
        raise UrlRefusedError("the URL holds blanks, control characters or backslashes; percent-encode them")
    try:
        parts = urlsplit(url)
        port = parts.port
        host = parts.hostname or ""
    except ValueError:
        raise UrlRefusedError("the URL is not well formed; check host and port") from None
    scheme = parts.scheme.lower()
    if scheme not in _PORTS:
        raise UrlRefusedError("only http:// and https:// addresses can be fetched")
    if "@" in parts.netloc:
        raise UrlRefusedError("the URL holds a user name or password; use a signed link instead")
    if not re.fullmatch(r"(\[[0-9A-Fa-f:.]+\]|[^\[\]:]+)(:[0-9]*)?", parts.netloc):
        raise UrlRefusedError("the URL is not well formed; check host and port")
    if port == 0:
        raise UrlRefusedError("port 0 cannot be opened")
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    path = re.sub(r"[^\x21-\x7e]", lambda found: quote(found[0]), path)
    return Target(scheme, _host(host, bracketed="[" in parts.netloc), port or _PORTS[scheme], path)


def is_public(address: Address) -> bool:
    """Whether an address is one of the open internet: no private, loopback, link-local, multicast, reserved, carrier
    (100.64.0.0/10), mapped, 6to4, Teredo, documentation or metadata address. NAT64 is judged by the IPv4 inside."""
    if isinstance(address, ipaddress.IPv6Address):
        if address.scope_id is not None:
            return False
        if address in _NAT64:
            return is_public(_inside_nat64(address))
        if address not in _PUBLIC6:
            return False
    return not any(_within(address, network) for network in _SPECIAL)


def permitted(address: Address, target: Target, trust: Trust) -> bool:
    """Whether a connection to ``address`` may be opened for ``target``."""
    if is_public(address) or trust.address(address, target.port):
        return True
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is not None or address.scope_id is not None:
            return False
        if address in _NAT64:
            address = _inside_nat64(address)
    if not trust.name(target.host, target.port):
        return False
    return not any(_within(address, network) for network in _UNREACHABLE_BY_NAME)


def is_inner_name(host: str) -> bool:
    """Whether a name can only mean something inside a network. It is then not even asked for: the answer would tell."""
    return "." not in host or any(host == name or host.endswith("." + name) for name in _INNER_NAMES)


def redact(url: str, limit: int = 200) -> str:
    """``url`` to be shown: no credentials, query, fragment or content of data URLs, at most ``limit`` characters."""
    if url[:5].lower() == "data:":
        return f"data:... ({len(url)} characters)"
    try:
        parts = urlsplit(url)
        host = parts.netloc.rpartition("@")[2]
    except ValueError:
        return "(a URL that is not well formed)"
    shown = urlunsplit((parts.scheme, host, parts.path, "", "")) + ("?..." if parts.query else "")
    shown = shown.encode("ascii", "backslashreplace").decode()
    return shown if len(shown) <= limit else shown[: limit - 3] + "..."


def _host(host: str, *, bracketed: bool) -> str:
    if bracketed:
        try:
            return str(ipaddress.IPv6Address(host if "%" not in host else ""))
        except ValueError:
            raise UrlRefusedError("the address in brackets is not an IPv6 address without a zone") from None
    try:
        name = host.encode("idna").decode("ascii").lower() if not host.isascii() else host
    except UnicodeError:
        raise UrlRefusedError("the host's name is not a valid international name") from None
    name = name.removesuffix(".")
    labels = name.split(".")
    if len(name) > 253 or not all(_LABEL.fullmatch(label) for label in labels):
        raise UrlRefusedError("the host of the URL is not a valid name")
    if re.fullmatch(r"[0-9]+|0x[0-9a-f]*", labels[-1]):
        try:
            return str(ipaddress.IPv4Address(name))
        except ValueError:
            raise UrlRefusedError("an IPv4 address is written a.b.c.d, in decimal") from None
    return name


def _split_entry(entry: str) -> tuple[str, int | None]:
    match = re.fullmatch(r"\[([0-9A-Fa-f:.]+)\](?::(\d{1,5}))?|([^:\[\]]+):(\d{1,5})", entry.strip())
    if match:
        port = match[2] or match[4]
        return match[1] or match[3], int(port) if port else None
    return entry.strip(), None


def _inside_nat64(address: ipaddress.IPv6Address) -> ipaddress.IPv4Address:
    return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)


def _within(address: Address, network: Network) -> bool:
    return address.version == network.version and address in network
