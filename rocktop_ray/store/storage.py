"""One interface for files and for S3: objects with keys, as streams, as files, as a pyarrow file system, as links."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Protocol
from urllib.parse import quote, unquote, urlsplit

from rocktop_ray.errors import SettingsError
from rocktop_ray.store.settings import StorageSettings

if TYPE_CHECKING:
    from pyarrow.fs import FileSystem


@dataclass(frozen=True)
class Stat:
    """What a store says about an object."""

    key: str
    bytes: int
    modified: float
    """Seconds since 1970, UTC."""
    etag: str
    """Changes when the content changes; only to be compared."""


class Storage(Protocol):
    """Objects under keys (see ``keys.check_key``). Safe to use from several threads; small enough to pickle.

    A write is whole or absent: a reader never sees a part, and a block that raises writes nothing. Every method raises
    SettingsError on a bad key and StorageError on refusal: ``retryable`` where the store is down or slow, not where
    credentials or bucket are wrong.
    """

    @property
    def url(self) -> str:
        """``file:///folder`` or ``s3://bucket/prefix``; holds no secret."""

    def open_read(self, key: str) -> BinaryIO:
        """A seekable stream of the object as it is now. Raises ObjectMissingError; ObjectChangedError while reading
        if a store that streams finds that the object was replaced."""

    def open_write(self, key: str, *, content_type: str | None = None) -> AbstractContextManager[BinaryIO]:
        """A stream to fill; the object appears when the block ends well."""

    def read(self, key: str, *, limit: int | None = None) -> bytes:
        """The whole object. Raises ObjectMissingError; StorageError if it has more than ``limit`` bytes."""

    def write(
        self, key: str, data: bytes, *, content_type: str | None = None, if_absent: bool = False, if_match: str = ""
    ) -> Stat:
        """Write the whole object. ``if_absent``: only if there is none; ``if_match``: only over the object of this
        ETag; else raises ObjectChangedError."""

    def put_file(self, key: str, path: Path, *, content_type: str | None = None) -> Stat:
        """Copy a local file into the store; large ones in parts."""

    def get_file(self, key: str, path: Path) -> Stat:
        """Copy an object to a local file, atomically. Raises ObjectMissingError."""

    def list(self, prefix: str = "") -> Iterator[Stat]:
        """Objects whose key starts with ``prefix``, in the store's order."""

    def stat(self, key: str) -> Stat:
        """Raises ObjectMissingError."""

    def exists(self, key: str) -> bool:
        """Whether there is such an object. A store that cannot be asked raises, it does not answer no."""

    def delete(self, key: str) -> None:
        """Remove an object; none there is fine."""

    def copy(self, source: str, target: str) -> Stat:
        """Copy inside the store. Raises ObjectMissingError."""

    def presigned_get(self, key: str, seconds: int) -> str:
        """A link that lets anybody read the object for 1..604800 s. Raises SettingsError if a store has none."""

    def public_url(self, key: str) -> str | None:
        """The address under the configured public prefix; None if there is none."""

    def arrow(self) -> FileSystem:
        """The same objects as a pyarrow file system rooted at this store, for bulk reading and writing."""


def open_storage(place: str | Path, settings: StorageSettings | None = None) -> Storage:
    """The store at ``file:///folder``, a folder's path, or ``s3://bucket/prefix``.

    Nothing is contacted yet. Raises SettingsError on another scheme, on a bucket or prefix that is not one, and when S3
    is asked for without the ``s3`` extra.
    """
    settings = settings or StorageSettings()
    text = str(place)
    if text.startswith("s3:"):
        bucket, prefix = split_s3(text)
        try:
            from rocktop_ray.store.s3 import S3Storage  # boto3: only when needed
        except ModuleNotFoundError as error:
            raise SettingsError("S3 needs boto3: pip install 'rocktop-ray[s3]'", stage="store") from error

        return S3Storage(bucket, prefix, settings)
    from rocktop_ray.store.local import LocalStorage

    return LocalStorage(_folder(text), settings.public_url)


def link(storage: Storage, key: str, seconds: int) -> str:
    """An address where others can read the object: the public one, else a signed one that lives ``seconds``.

    Raises SettingsError if the store has neither, StorageError.
    """
    return storage.public_url(key) or storage.presigned_get(key, seconds)


def split_s3(url: str) -> tuple[str, str]:
    """``s3://bucket/prefix`` to bucket and prefix (no slash at its ends). Raises SettingsError."""
    match = re.fullmatch(r"s3://([a-z0-9][a-z0-9.-]{1,61}[a-z0-9])(?:/(.*))?", url, re.DOTALL)
    if not match or ".." in match[1]:
        raise SettingsError(f"not an S3 place: {url[:80]!a}; write s3://bucket or s3://bucket/prefix", stage="store")
    return match[1], (match[2] or "").strip("/")


def join_url(base: str, key: str) -> str:
    """``key`` under the address ``base``, percent-encoded."""
    return f"{base.rstrip('/')}/{quote(key)}"


def _folder(text: str) -> Path:
    if text.startswith("file:"):
        parts = urlsplit(text)
        if parts.netloc not in ("", "localhost") or not parts.path.startswith("/") or parts.query or parts.fragment:
            raise SettingsError(f"not a local folder: {text[:80]!a}; write file:///folder", stage="store")
        text = unquote(parts.path)
    elif re.match(r"[A-Za-z][A-Za-z0-9+.-]+:", text):
        raise SettingsError("a store is at file:///folder, at a folder's path or at s3://bucket/prefix", stage="store")
    if not text or "\0" in text:
        raise SettingsError("the folder of the store has no name", stage="store")
    return Path(text).expanduser().absolute()
