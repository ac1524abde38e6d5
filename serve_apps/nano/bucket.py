"""Where finished requests go: RVC-Nano's layout in the bucket that the ``S3_*`` variables name."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rocktop_ray.audio.decode import iter_take
from rocktop_ray.audio.encode import open_writer
from rocktop_ray.errors import storage_errors
from rocktop_ray.store.settings import StorageSettings, s3_place
from rocktop_ray.store.storage import Storage, link, open_storage
from serve_apps.nano.contract import BITRATE, FORMAT, MEDIA_TYPE, RATE

PREFIX = "worker-rvc-nano"


class ResultBucket:
    """Uploads of one deployment."""

    def __init__(self, store: Storage, link_seconds: int) -> None:
        """link_seconds: life of the signed links, where the bucket has no public address."""
        self._store, self._link_seconds = store, link_seconds

    @classmethod
    def from_environment(cls, link_seconds: int, environment: Mapping[str, str] | None = None) -> ResultBucket | None:
        """The bucket, None where S3 is not set up. Nothing is contacted. Raises SettingsError (half set up)."""
        place = s3_place(environment)
        if place is None:
            return None
        return cls(open_storage(place, StorageSettings.from_environment(environment)), link_seconds)

    @staticmethod
    def key(request_id: str, name: str) -> str:
        """Where a file of a request lies."""
        return f"{PREFIX}/request-{request_id}/{name}"

    def put_output(self, request_id: str, path: Path) -> tuple[str, str]:
        """Upload the result; its key, and an address where the client can have it. Raises StorageError."""
        key = self.key(request_id, "output.opus.ogg")
        self._store.put_file(key, path, content_type=MEDIA_TYPE)
        return key, link(self._store, key, self._link_seconds)

    def put_input(self, request_id: str, path: Path) -> None:
        """Upload the take, encoded by ``encode_take``. Raises StorageError."""
        self._store.put_file(self.key(request_id, "input.opus.ogg"), path, content_type=MEDIA_TYPE)

    def put_metadata(self, request_id: str, metadata: Mapping[str, Any]) -> None:
        """Upload the facts of the request. Raises StorageError."""
        data = json.dumps(metadata, ensure_ascii=False, indent=2).encode()
        self._store.write(self.key(request_id, "metadata.json"), data, content_type="application/json")


class EncodedTake:
    """A take as Opus in a temporary file, while the block runs. Raises AudioError, StorageError."""

    def __init__(self, source: Path) -> None:
        self._source = source

    def __enter__(self) -> Path:
        with storage_errors("the temporary folder"):
            self._folder = tempfile.TemporaryDirectory(prefix="rocktop-")
        try:
            target = Path(self._folder.name) / "input.ogg"
            with open_writer(target, FORMAT, RATE, BITRATE) as writer:
                for block in iter_take(self._source, rate=RATE):
                    writer.write(block)
        except BaseException:
            self._folder.cleanup()
            raise
        return target

    def __exit__(self, *_: object) -> None:
        self._folder.cleanup()
