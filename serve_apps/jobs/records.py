"""Jobs as the board keeps them, and as bytes in the store."""

from __future__ import annotations

import asyncio
import json
import re
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from pydantic import TypeAdapter, ValidationError

from rocktop_ray.errors import RocktopError, SettingsError
from serve_apps.jobs.protocol import FINAL, Job

_VERSION = 1
_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
_JOB = TypeAdapter(Job)


@dataclass(eq=False)
class Record:
    """A job on the board, with what is not shown of it."""

    job: Job
    starts: int = 0
    """How often work on it began; a clean stop of the process takes its start back."""
    size: int = 0
    """Bytes of the job as it was sent, kept in memory as well as in the store."""
    task: asyncio.Task[None] | None = None
    final: asyncio.Event = field(default_factory=asyncio.Event)
    watchers: set[asyncio.Event] = field(default_factory=set)

    def change(self, **changes: Any) -> None:
        """New values of the job's fields; those who watch are told."""
        self.job = replace(self.job, **changes)
        if self.job.status in FINAL:
            self.final.set()
        self.wake()

    def wake(self) -> None:
        """Tell those who watch that something changed."""
        for watcher in self.watchers:
            watcher.set()

    def to_bytes(self) -> bytes:
        """The record as JSON. Raises ValueError or TypeError if the job holds what JSON cannot."""
        data = {"version": _VERSION, "starts": self.starts, "job": asdict(self.job)}
        return json.dumps(data, allow_nan=False, separators=(",", ":")).encode()

    @classmethod
    def from_bytes(cls, data: bytes) -> Record:
        """What ``to_bytes`` wrote. Raises ValueError on anything else."""
        try:
            found = json.loads(data)
            if found["version"] != _VERSION:
                raise ValueError("written by another version")
            starts, job = found["starts"], _JOB.validate_python(found["job"])
        except (KeyError, TypeError, RecursionError, ValidationError) as error:
            raise ValueError("not a job") from error
        if not isinstance(starts, int) or _ID.fullmatch(job.id) is None:
            raise ValueError("not a job")
        record = cls(job, starts, len(data))
        if job.status in FINAL:
            record.final.set()
        return record


def check_id(id: str) -> str:
    """``id`` if it can name a job and its files: 1 to 64 letters, digits, ``-`` and ``_``. Raises SettingsError."""
    if not isinstance(id, str) or _ID.fullmatch(id) is None:
        raise SettingsError("a job's id has 1 to 64 letters, digits, - and _", stage="jobs")
    return id


def error_data(error: RocktopError) -> dict[str, Any]:
    """An error as a job keeps it."""
    return {**error.as_dict(), "status": error.http_status}
