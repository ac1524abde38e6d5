"""Finished conversions that could not be delivered: whoever asks for the very same again need not wait for it again."""

from __future__ import annotations

import hashlib
import json
import time
from dataclasses import asdict, dataclass
from typing import Any

from rocktop_ray.errors import ObjectMissingError, StorageError
from rocktop_ray.settings import ConvertSettings
from serve_apps.spool import RESULTS, Spool

KEEP_SECONDS = 6 * 3600.0
_FOLDER = f"{RESULTS}/nano-"
_MOST_FACTS = 1 << 20


@dataclass(frozen=True)
class Conversion:
    """A result in the spool, and what is told about it."""

    key: str
    seconds: float
    bytes: int
    facts: dict[str, Any]
    """See ``orders.Report.facts``."""


class KeptConversions:
    """Results by what they were made of: content of take and voice, and settings. So who finds one could make it."""

    def __init__(self, spool: Spool) -> None:
        self._spool = spool

    @staticmethod
    def name(vocal_sha256: str, voice_id: str, settings: ConvertSettings) -> str:
        """Under which a conversion is kept."""
        made_of = json.dumps([vocal_sha256, voice_id, asdict(settings)])
        return hashlib.sha256(made_of.encode()).hexdigest()[:40]

    def find(self, name: str) -> Conversion | None:
        """A kept conversion. A store that refuses has none."""
        key = f"{_FOLDER}{name}.ogg"
        store = self._spool.store
        try:
            found = store.stat(key)
            if found.modified < time.time() - KEEP_SECONDS:
                return None
            facts = json.loads(store.read(f"{_FOLDER}{name}.json", limit=_MOST_FACTS))
            return Conversion(key, facts["seconds"], found.bytes, facts["facts"])
        except (StorageError, ValueError, KeyError, TypeError):
            return None

    def keep(self, name: str, done: Conversion) -> None:
        """Keep a conversion for some hours; older ones are removed. Raises StorageError."""
        store, key = self._spool.store, f"{_FOLDER}{name}.ogg"
        for old in list(store.list(_FOLDER)):
            if old.modified < time.time() - KEEP_SECONDS:
                store.delete(old.key)
        if done.key == key:
            return
        facts = json.dumps({"seconds": done.seconds, "facts": done.facts})
        try:
            store.copy(done.key, key)
        except ObjectMissingError:
            return
        store.write(f"{_FOLDER}{name}.json", facts.encode())
