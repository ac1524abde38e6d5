"""What a cache can be filled from: foreign addresses, and objects of a store."""

from __future__ import annotations

import dataclasses
import hashlib
import re
import shutil
from dataclasses import dataclass, field
from typing import BinaryIO, Protocol
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

from rocktop_ray.errors import UrlTooLargeError
from rocktop_ray.store.addresses import redact
from rocktop_ray.store.guarded_fetch import Fetched, FetchPolicy, Progress, Validators, guarded_fetch
from rocktop_ray.store.sniff import Kind, require
from rocktop_ray.store.storage import Storage

_SIGNED = re.compile(r"x-(amz|goog|oss|obs|cos|ms)-.+|q-(sign|ak|key|header|url|signature).*", re.IGNORECASE)
_OLD_SIGNED = {"awsaccesskeyid", "googleaccessid", "ossaccesskeyid", "key-pair-id", "accesskeyid"}
_OLD_PARTS = _OLD_SIGNED | {"signature", "expires", "policy", "security-token"}
_AZURE = {"sig", "se", "sp", "sv", "sr", "st", "spr", "sip", "ske", "sks", "skt", "skv", "skoid", "sktid", "sdd"}


class Source(Protocol):
    """Where content comes from."""

    @property
    def key(self) -> str:
        """The same for every way to name one object: two links that differ only in their signature share it."""

    @property
    def identity(self) -> str:
        """The same only for the very same request, signature included: who shows it may have what it brought."""

    def fetch(self, sink: BinaryIO, known: Validators | None, most: int) -> Fetched:
        """Write at most ``most`` bytes of content into ``sink``, or nothing when ``known`` is still the version there.

        Raises FetchError, StorageError.
        """

    def accept(self, head: bytes, size: int) -> None:
        """Raise FetchError if content of this start and size is not what is wanted."""


@dataclass(frozen=True)
class UrlSource:
    """A foreign address, fetched by ``guarded_fetch``."""

    url: str = field(repr=False)
    policy: FetchPolicy = field(default_factory=FetchPolicy)
    expect: Kind | None = None
    progress: Progress | None = None

    @property
    def key(self) -> str:
        """The address without its signature; as it is, if it is not well formed (to fetch it is refused then)."""
        try:
            return without_signature(self.url)
        except ValueError:
            return self.url

    @property
    def identity(self) -> str:
        """The whole address."""
        return self.url

    def fetch(self, sink: BinaryIO, known: Validators | None, most: int) -> Fetched:
        """See ``Source``."""
        policy = dataclasses.replace(self.policy, max_bytes=min(self.policy.max_bytes, most))
        return guarded_fetch(
            self.url, sink, policy=policy, expect=self.expect, validators=known, progress=self.progress
        )

    def accept(self, head: bytes, size: int) -> None:
        """See ``Source``."""
        if size > self.policy.max_bytes:
            most = self.policy.max_bytes
            raise UrlTooLargeError(f"{redact(self.url)}: {size} bytes are more than the limit of {most}")
        if self.expect is not None:
            require(self.expect, head, redact(self.url))


@dataclass(frozen=True)
class ObjectSource:
    """An object of a store."""

    storage: Storage
    name: str

    @property
    def key(self) -> str:
        """The store's address and the object's name."""
        return f"{self.storage.url}/{self.name}"

    @property
    def identity(self) -> str:
        """As ``key``: whoever holds the store may read it."""
        return self.key

    def fetch(self, sink: BinaryIO, known: Validators | None, most: int) -> Fetched:
        """See ``Source``."""
        found = self.storage.stat(self.name)
        now = Validators(etag=found.etag, length=found.bytes)
        if known == now:
            return Fetched(False, 0, "", "", now)
        if found.bytes > most:
            raise UrlTooLargeError(f"{self.key}: {found.bytes} bytes are more than the limit of {most}")
        hashing = _Hashing(sink)
        with self.storage.open_read(self.name) as stream:
            shutil.copyfileobj(stream, hashing, 1 << 20)
        return Fetched(True, hashing.count, hashing.digest.hexdigest(), "", now)

    def accept(self, head: bytes, size: int) -> None:
        """Everything in a store is accepted."""


class _Hashing:
    def __init__(self, sink: BinaryIO) -> None:
        self._sink, self.digest, self.count = sink, hashlib.sha256(), 0

    def write(self, data: bytes) -> None:
        self.digest.update(data)
        self.count += len(data)
        self._sink.write(data)


def without_signature(url: str) -> str:
    """``url`` without fragment and without what signed links of S3, R2, GCS, OSS, COS, CloudFront and Azure add."""
    parts = urlsplit(url)
    fields = parse_qsl(parts.query, keep_blank_values=True)
    names = {name.lower() for name, _ in fields}
    drop: set[str] = set()
    if names & _OLD_SIGNED:
        drop |= _OLD_PARTS
    if {"sig", "se"} <= names or {"sig", "sv"} <= names:
        drop |= _AZURE
    kept = [(name, value) for name, value in fields if name.lower() not in drop and not _SIGNED.fullmatch(name)]
    query = parts.query if len(kept) == len(fields) else urlencode(kept)
    return urlunsplit((parts.scheme.lower(), parts.netloc.lower(), parts.path, query, ""))
