"""Settings of stores. The S3 names are those of RVC-Nano, so that its deployments keep theirs."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from rocktop_ray.errors import SettingsError


@dataclass(frozen=True)
class StorageSettings:
    """How to reach S3, and where its objects can be seen by others. Secrets are not in its repr.

    Raises SettingsError on a value that cannot be; the message never holds a secret.
    """

    endpoint_url: str = ""
    """``https://host[:port]``; empty: AWS by region."""
    access_key: str = field(default="", repr=False)
    """Empty: what the machine offers (profile, instance role)."""
    secret_key: str = field(default="", repr=False)
    region: str = "auto"
    public_url: str = ""
    """Where the bucket (or the folder) can be seen by anybody: the object's path in it follows after a slash."""
    connect_seconds: float = 5.0
    read_seconds: float = 30.0
    """Longest silence of the server."""
    slowest: int = 32 << 10
    """Bytes/s: reading an object may take ``read_seconds`` and its size at this rate; then it is too slow."""
    attempts: int = 3
    """Tries of one request in all, with pauses that grow."""
    part_bytes: int = 16 << 20
    """Larger files travel in parts of this size; S3 asks for at least 5 MiB."""

    def __post_init__(self) -> None:
        for name in ("endpoint_url", "public_url"):
            _check_address(name, getattr(self, name))
        if bool(self.access_key) != bool(self.secret_key):
            raise SettingsError("S3 needs both an access key and a secret key, or neither", stage="store")
        for name, low, high in (
            ("connect_seconds", 0.05, 300),
            ("read_seconds", 0.05, 3600),
            ("slowest", 0, 1 << 30),
            ("attempts", 1, 20),
            ("part_bytes", 5 << 20, 5 << 30),
        ):
            value = getattr(self, name)
            if not low <= value <= high:
                raise SettingsError(f"{name} must be {low} to {high}, not {value}", stage="store")

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] | None = None) -> StorageSettings:
        """Read S3_ENDPOINT_URL, S3_ACCESS_KEY, S3_SECRET_KEY, S3_REGION, S3_PUBLIC_URL. Raises SettingsError."""
        values = os.environ if environment is None else environment
        return cls(
            endpoint_url=values.get("S3_ENDPOINT_URL", "").strip(),
            access_key=values.get("S3_ACCESS_KEY", "").strip(),
            secret_key=values.get("S3_SECRET_KEY", "").strip(),
            region=values.get("S3_REGION", "").strip() or "auto",
            public_url=values.get("S3_PUBLIC_URL", "").strip(),
        )


def s3_place(environment: Mapping[str, str] | None = None) -> str | None:
    """``s3://bucket`` when the environment sets S3 up (endpoint, both keys, bucket), None when it names none of them.

    Raises SettingsError that names what is missing when only some are there: a half set-up store must not turn into
    silence.
    """
    values = os.environ if environment is None else environment
    names = ("S3_ENDPOINT_URL", "S3_ACCESS_KEY", "S3_SECRET_KEY", "S3_BUCKET_NAME")
    missing = [name for name in names if not values.get(name, "").strip()]
    if len(missing) == len(names):
        return None
    if missing:
        raise SettingsError(f"S3 is only half set up; not set: {', '.join(missing)}", stage="store")
    return f"s3://{values['S3_BUCKET_NAME'].strip()}"


def _check_address(name: str, value: str) -> None:
    if not value:
        return
    try:
        parts = urlsplit(value)
        good = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
        plain = not (parts.username or parts.password or parts.query or parts.fragment)
    except ValueError:
        good = plain = False
    if not good or not plain or any(character.isspace() for character in value):
        raise SettingsError(f"{name} must be http(s)://host[:port][/path] without credentials or query", stage="store")
