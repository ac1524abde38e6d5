"""Read one S3 object as a seekable stream that survives broken connections."""

from __future__ import annotations

import contextlib
import io
import os
import time
from typing import TYPE_CHECKING, Any

from rocktop_ray.errors import StorageTimeoutError
from rocktop_ray.store.s3_errors import BREAKS, from_break, s3_errors
from rocktop_ray.store.settings import StorageSettings

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer


class S3Reader(io.RawIOBase):
    """The bytes of one version of an object: after a break, or a seek, the rest of the same ETag is asked for.

    Reading that falls below ``settings.slowest`` bytes/s (after a grace of every silent try) raises
    StorageTimeoutError; an object replaced meanwhile raises ObjectChangedError.
    """

    def __init__(self, client: Any, bucket: str, key: str, settings: StorageSettings) -> None:
        super().__init__()
        self._client, self._bucket, self._key, self._settings = client, bucket, key, settings
        self._place = f"s3://{bucket}/{key}"
        self._position = 0
        self._delivered = 0
        self._seconds = 0.0
        with s3_errors(self._place):
            answer = client.get_object(Bucket=bucket, Key=key)
            self._body: Any = answer["Body"]
            self.size = int(answer["ContentLength"])
            self.etag = str(answer["ETag"]).strip('"')
            self.modified = answer["LastModified"].timestamp()

    def readable(self) -> bool:
        """Yes."""
        return True

    def seekable(self) -> bool:
        """Yes; a seek costs a request."""
        return True

    def tell(self) -> int:
        """Position in bytes."""
        return self._position

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """As of any stream; the next read asks for the bytes from there."""
        position = offset + {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self.size}[whence]
        if position < 0:
            raise ValueError("negative position")
        if position != self._position:
            self._drop()
        self._position = position
        return position

    def readinto(self, buffer: WriteableBuffer) -> int:
        """At least one byte, or 0 at the end. Raises StorageError."""
        view = memoryview(buffer).cast("B")
        if self._position >= self.size or not view:
            return 0
        start = time.monotonic()
        try:
            chunk = self._read(min(len(view), self.size - self._position))
        finally:
            self._seconds += time.monotonic() - start
        view[: len(chunk)] = chunk
        self._position += len(chunk)
        self._delivered += len(chunk)
        grace = self._settings.read_seconds * self._settings.attempts
        if self._settings.slowest and self._seconds > grace + self._delivered / self._settings.slowest:
            raise StorageTimeoutError(f"the store is too slow for {self._place}; try again later")
        return len(chunk)

    def close(self) -> None:
        """Close the connection."""
        if not self.closed:
            self._drop()
        super().close()

    def _read(self, count: int) -> bytes:
        for attempt in range(1, self._settings.attempts + 1):
            if self._body is None:
                self._open()
            try:
                # botocore's own read waits until the whole chunk is there: a trickle would never meet a time limit
                chunk: bytes = self._body._raw_stream.read1(count)
                if not chunk:
                    raise ConnectionError("the connection ended early")
                return chunk
            except BREAKS as error:
                self._drop()
                if attempt == self._settings.attempts:
                    raise from_break(error, self._place) from None
                time.sleep(0.1 * 2**attempt)
        raise AssertionError("not reached")

    def _open(self) -> None:
        with s3_errors(self._place):
            asked = {"Range": f"bytes={self._position}-", "IfMatch": f'"{self.etag}"'}
            self._body = self._client.get_object(Bucket=self._bucket, Key=self._key, **asked)["Body"]

    def _drop(self) -> None:
        body, self._body = self._body, None
        if body is not None:
            with contextlib.suppress(*BREAKS):
                body.close()
