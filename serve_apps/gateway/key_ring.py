"""API keys: a file of their hashes. A key is 256 random bits, so one round of SHA-256 is as good as a slow hash."""

from __future__ import annotations

import hashlib
import hmac
import json
import logging
import os
import re
import secrets
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from rocktop_ray.errors import SettingsError, StorageError, storage_error, storage_errors
from rocktop_ray.store.atomic import atomic_path
from serve_apps.gateway.refusals import NotReadyError

PREFIX = "rk_"
"""What keys begin with, so that scanners for leaked secrets can find them."""
LOOK_AGAIN = 1.0
"""Seconds after which a changed file is noticed."""

_VERSION = 1
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_MAX_BYTES = 16 << 20

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Key:
    """What is kept of a key."""

    name: str
    """Whose it is: the owner of the jobs that it makes."""
    sha256: str
    created: str
    """ISO 8601 UTC."""
    per_minute: int | None = None
    """Requests; None for any number."""
    at_once: int | None = None
    """Requests under way; None for any number."""
    admin: bool = False
    """May add and remove voices."""


class KeyFile:
    """The keys in a file, shared by the processes that check them and the command that changes them."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path).expanduser()

    def read(self) -> list[Key]:
        """All keys; none if there is no file. Raises StorageError, SettingsError (a damaged file)."""
        with storage_errors(self.path, "read"):
            try:
                if self.path.stat().st_size > _MAX_BYTES:
                    raise SettingsError(f"{self.path} is too large for a file of keys")
                data = self.path.read_bytes()
            except FileNotFoundError:
                return []
        try:
            content = json.loads(data)
            if content["version"] != _VERSION:
                raise ValueError("written by another version")
            return [_checked(Key(**entry)) for entry in content["keys"]]
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            raise SettingsError(f"{self.path} is not a file of keys ({error}): put it back from a copy") from error

    def add(self, name: str, *, per_minute: int | None = None, at_once: int | None = None, admin: bool = False) -> str:
        """Make a key and return it: nobody can read it again. Raises SettingsError, StorageError."""
        if _NAME.fullmatch(name) is None:
            raise SettingsError("a key's name has 1 to 64 letters, digits, '.', '_' and '-'")
        secret = PREFIX + secrets.token_urlsafe(32)
        now = datetime.now(UTC).isoformat(timespec="seconds")
        key = _checked(Key(name, _hash(secret), now, per_minute, at_once, admin))
        with self._changing() as keys:
            if any(known.name == name for known in keys):
                raise SettingsError(f"there is a key named {name!r} already: revoke it first, or choose another name")
            keys.append(key)
        return secret

    def revoke(self, name: str) -> None:
        """Forget a key. Raises SettingsError if there is none of that name, StorageError."""
        with self._changing() as keys:
            left = [key for key in keys if key.name != name]
            if len(left) == len(keys):
                raise SettingsError(f"there is no key named {name[:64]!r}; see 'keys list'")
            keys[:] = left

    @contextmanager
    def _changing(self) -> Iterator[list[Key]]:
        try:
            with storage_errors(self.path, "write"):
                self.path.parent.mkdir(parents=True, exist_ok=True)
            with FileLock(self.path.with_name(self.path.name + ".lock"), timeout=20):
                keys = self.read()
                yield keys
                data = {"version": _VERSION, "keys": [asdict(key) for key in keys]}
                with atomic_path(self.path) as part:
                    os.close(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
                    part.write_text(json.dumps(data, indent=1), "utf-8")
        except Timeout as error:
            raise StorageError(f"another process holds {self.path}", retryable=True) from error
        except OSError as error:
            raise storage_error(error, self.path, "write") from error


class KeyRing:
    """Tells whose key was shown. A file that changed is read again; one that cannot be read lets nobody in."""

    def __init__(self, path: str | Path) -> None:
        self._file = KeyFile(path)
        self._guard = threading.Lock()
        self._keys: list[tuple[bytes, Key]] = []
        self._mark: tuple[int, ...] | None = None
        self._looked = float("-inf")
        self._broken = False

    def find(self, secret: str) -> Key | None:
        """The key of that text, None if there is none. Takes the same time for all. Raises NotReadyError."""
        keys = self._current()
        digest = bytes.fromhex(_hash(secret))
        found = None
        for known, key in keys:
            if hmac.compare_digest(known, digest):
                found = key
        return found

    def _current(self) -> list[tuple[bytes, Key]]:
        with self._guard:
            now = time.monotonic()
            if now - self._looked >= LOOK_AGAIN:
                self._looked = now
                self._refresh()
            if self._broken:
                raise NotReadyError("the file of API keys cannot be read; the operator finds the reason in the log")
            return self._keys

    def _refresh(self) -> None:
        try:
            with storage_errors(self._file.path, "read"):
                found = self._file.path.stat()
            mark = (found.st_mtime_ns, found.st_size, found.st_ino)
            if mark == self._mark:
                return
            self._keys = [(bytes.fromhex(key.sha256), key) for key in self._file.read()]
            self._mark, self._broken = mark, False
        except (StorageError, SettingsError) as error:
            if not self._broken:
                _log.error("api keys unreadable", extra={"why": error.message})
            self._keys, self._mark, self._broken = [], None, True


def _hash(secret: str) -> str:
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).hexdigest()


def _checked(key: Key) -> Key:
    """Raises SettingsError for what no key can be."""
    limits: tuple[Any, ...] = (key.per_minute, key.at_once)
    if any(limit is not None and (type(limit) is not int or not 1 <= limit <= 1_000_000) for limit in limits):
        raise SettingsError("the limits of a key are whole numbers from 1 to 1000000")
    texts = isinstance(key.name, str) and isinstance(key.sha256, str) and isinstance(key.created, str)
    if not texts or re.fullmatch("[0-9a-f]{64}", key.sha256) is None or not isinstance(key.admin, bool):
        raise SettingsError("an entry of the file of keys is damaged")
    return key
