"""A store in an S3 bucket: AWS, Cloudflare R2, SeaweedFS, MinIO, Ceph and others that speak its protocol."""

from __future__ import annotations

import functools
import io
import os
import re
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, cast
from urllib.parse import urlsplit

import boto3
from boto3.s3.transfer import TransferConfig
from botocore.config import Config

from rocktop_ray.errors import BucketMissingError, ObjectMissingError, SettingsError, StorageError, storage_errors
from rocktop_ray.store.atomic import atomic_path
from rocktop_ray.store.keys import MAX_KEY_BYTES, check_key, check_prefix, content_type
from rocktop_ray.store.s3_errors import s3_errors
from rocktop_ray.store.s3_reader import S3Reader
from rocktop_ray.store.settings import StorageSettings
from rocktop_ray.store.storage import Stat, join_url

if TYPE_CHECKING:
    from pyarrow.fs import FileSystem

_WEEK = 7 * 86400
_BUFFER = 1 << 18
_MAKING = threading.Lock()
"""Clients of boto3 are safe between threads, making one is not."""


class S3Storage:
    """Objects of ``bucket`` whose names start with ``prefix/``. See ``storage.Storage``."""

    def __init__(self, bucket: str, prefix: str, settings: StorageSettings) -> None:
        if prefix:
            check_key(prefix)
        self.bucket, self.prefix, self.settings = bucket, prefix, settings
        self._bucket_seen = False

    def __repr__(self) -> str:
        return f"S3Storage({self.url!r})"

    def __reduce__(self) -> tuple[type[S3Storage], tuple[str, str, StorageSettings]]:
        return S3Storage, (self.bucket, self.prefix, self.settings)

    @property
    def url(self) -> str:
        """``s3://bucket/prefix``."""
        return f"s3://{self.bucket}/{self.prefix}".rstrip("/")

    def open_read(self, key: str) -> BinaryIO:
        """See ``Storage``."""
        return cast(BinaryIO, io.BufferedReader(self._reader(key), _BUFFER))

    @contextmanager
    def open_write(self, key: str, *, content_type: str | None = None) -> Iterator[BinaryIO]:
        """See ``Storage``; collected in a temporary file first, so that a block that fails sends nothing."""
        self._name(key)
        with storage_errors("temporary files"), tempfile.TemporaryFile() as stream:
            yield cast(BinaryIO, stream)
            stream.seek(0)
            self._upload(key, cast(BinaryIO, stream), content_type)

    def read(self, key: str, *, limit: int | None = None) -> bytes:
        """See ``Storage``."""
        with self._reader(key) as raw:
            if limit is not None and raw.size > limit:
                raise StorageError(f"{self._say(key)} has {raw.size} bytes, more than {limit}")
            return raw.readall()

    def write(
        self, key: str, data: bytes, *, content_type: str | None = None, if_absent: bool = False, if_match: str = ""
    ) -> Stat:
        """See ``Storage``. The conditions are kept by the server; old servers ignore them."""
        asked: dict[str, str] = {"IfNoneMatch": "*"} if if_absent else {"IfMatch": f'"{if_match}"'} if if_match else {}
        with self._errors(key):
            self._client.put_object(
                Bucket=self.bucket, Key=self._name(key), Body=data, **_type(key, content_type), **asked
            )
        return self.stat(key)

    def put_file(self, key: str, path: Path, *, content_type: str | None = None) -> Stat:
        """See ``Storage``."""
        self._name(key)
        with storage_errors(path), path.open("rb") as stream:
            self._upload(key, stream, content_type)
        return self.stat(key)

    def get_file(self, key: str, path: Path) -> Stat:
        """See ``Storage``; checked for its whole length."""
        with self._reader(key) as raw, atomic_path(path) as part, part.open("xb") as target:
            while chunk := raw.read(_BUFFER):
                target.write(chunk)
            return Stat(key, raw.size, raw.modified, raw.etag)

    def list(self, prefix: str = "") -> Iterator[Stat]:
        """See ``Storage``. Objects with names that ``keys`` refuses (folder marks) are left out."""
        start = f"{self.prefix}/" if self.prefix else ""
        with self._errors(prefix):
            pages = self._client.get_paginator("list_objects_v2")
            for page in pages.paginate(Bucket=self.bucket, Prefix=start + check_prefix(prefix)):
                page["IsTruncated"]  # every S3 says it: other servers raise here
                for found in page.get("Contents", ()):
                    key = found["Key"][len(start) :]
                    if _good(key):
                        yield Stat(key, found["Size"], found["LastModified"].timestamp(), found["ETag"].strip('"'))

    def stat(self, key: str) -> Stat:
        """See ``Storage``."""
        with self._errors(key):
            found = self._client.head_object(Bucket=self.bucket, Key=self._name(key))
            return Stat(key, found["ContentLength"], found["LastModified"].timestamp(), found["ETag"].strip('"'))

    def exists(self, key: str) -> bool:
        """See ``Storage``."""
        try:
            self.stat(key)
        except ObjectMissingError:
            return False
        return True

    def delete(self, key: str) -> None:
        """See ``Storage``."""
        with self._errors(key):
            self._client.delete_object(Bucket=self.bucket, Key=self._name(key))

    def copy(self, source: str, target: str) -> Stat:
        """See ``Storage``; done by the server."""
        origin = {"Bucket": self.bucket, "Key": self._name(source)}
        with self._errors(source):
            self._client.copy(origin, self.bucket, self._name(target), Config=self._transfer())
        return self.stat(target)

    def presigned_get(self, key: str, seconds: int) -> str:
        """See ``Storage``. The server is not asked, so the object need not be there yet."""
        if not 1 <= seconds <= _WEEK:
            raise SettingsError(f"a signed link lives 1 to {_WEEK} seconds, not {seconds}", stage="store")
        named = {"Bucket": self.bucket, "Key": self._name(key)}
        with self._errors(key):
            return str(self._client.generate_presigned_url("get_object", Params=named, ExpiresIn=seconds))

    def public_url(self, key: str) -> str | None:
        """See ``Storage``."""
        name = self._name(key)
        return join_url(self.settings.public_url, name) if self.settings.public_url else None

    def arrow(self) -> FileSystem:
        """See ``Storage``."""
        try:
            from pyarrow import fs
        except ImportError as error:
            raise SettingsError("bulk access needs pyarrow: pip install 'rocktop-ray[s3]'", stage="store") from error
        endpoint = urlsplit(self.settings.endpoint_url)
        options: dict[str, Any] = {}
        if self.settings.endpoint_url:
            options |= {"endpoint_override": endpoint.netloc, "scheme": endpoint.scheme}
        if self.settings.access_key:
            options |= {"access_key": self.settings.access_key, "secret_key": self.settings.secret_key}
        remote = fs.S3FileSystem(
            region=_region(self.settings),
            connect_timeout=self.settings.connect_seconds,
            request_timeout=self.settings.read_seconds,
            retry_strategy=fs.AwsStandardS3RetryStrategy(max_attempts=self.settings.attempts),
            **options,
        )
        return fs.SubTreeFileSystem(f"{self.bucket}/{self.prefix}".rstrip("/"), remote)

    @property
    def _client(self) -> Any:
        with _MAKING:
            return _client(self.settings, os.getpid())

    def _reader(self, key: str) -> S3Reader:
        name = self._name(key)
        with self._errors(key):
            return S3Reader(self._client, self.bucket, name, self.settings)

    def _upload(self, key: str, stream: BinaryIO, kind: str | None) -> None:
        with self._errors(key):
            self._client.upload_fileobj(
                stream, self.bucket, self._name(key), ExtraArgs=_type(key, kind), Config=self._transfer()
            )

    def _transfer(self) -> TransferConfig:
        size = self.settings.part_bytes
        return TransferConfig(multipart_threshold=size, multipart_chunksize=size, max_concurrency=4)

    def _name(self, key: str) -> str:
        name = f"{self.prefix}/{check_key(key)}" if self.prefix else check_key(key)
        if len(name.encode()) > MAX_KEY_BYTES:
            raise SettingsError("the name of the object is too long with the prefix of its store", stage="store")
        return name

    def _say(self, key: str) -> str:
        return f"{self.url}/{key}"

    @contextmanager
    def _errors(self, key: str) -> Iterator[None]:
        """``s3_errors``, and a 404 without a code told apart: no such object, or no such bucket."""
        try:
            with s3_errors(self._say(key)):
                yield
        except ObjectMissingError:
            if not self._bucket_seen:
                try:
                    with s3_errors(self.url):
                        self._client.head_bucket(Bucket=self.bucket)
                except ObjectMissingError:
                    raise BucketMissingError(
                        f"no such bucket for {self._say(key)}; check S3_BUCKET_NAME and the endpoint"
                    ) from None
                self._bucket_seen = True
            raise


@functools.lru_cache(maxsize=8)
def _client(settings: StorageSettings, process: int) -> Any:
    """One client, with its connections, for all stores of the same settings in one process (also after a fork)."""
    config = Config(
        connect_timeout=settings.connect_seconds,
        read_timeout=settings.read_seconds,
        retries={"mode": "standard", "total_max_attempts": settings.attempts},
        signature_version="s3v4",
        # R2, SeaweedFS and MinIO: bucket in the path, no checksums that only AWS knows
        s3={"addressing_style": "path" if settings.endpoint_url else "auto"},
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
    )
    with s3_errors(settings.endpoint_url or "AWS"):
        return boto3.session.Session().client(
            "s3",
            endpoint_url=settings.endpoint_url or None,
            aws_access_key_id=settings.access_key or None,
            aws_secret_access_key=settings.secret_key or None,
            region_name=_region(settings),
            config=config,
        )


def _region(settings: StorageSettings) -> str:
    """``auto`` means something to R2 and others; AWS wants a name, which its endpoints carry."""
    host = urlsplit(settings.endpoint_url).hostname or "amazonaws.com"
    if settings.region != "auto" or not host.endswith("amazonaws.com"):
        return settings.region
    named = re.search(r"s3[.-]([a-z]{2}-[a-z]+-\d)\.amazonaws\.com$", host)
    return named[1] if named else "us-east-1"


def _type(key: str, given: str | None) -> dict[str, str]:
    return {"ContentType": given or content_type(key)}


def _good(key: str) -> bool:
    try:
        check_key(key)
    except SettingsError:
        return False
    return True
