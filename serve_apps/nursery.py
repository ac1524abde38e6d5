"""Processes that Ray starts while the service runs, in the place of lost ones, hold up nobody until they are ready.

To start a worker takes Ray two seconds of a core, before any code of ours runs in it: two imports of Ray and one of
Serve. Whoever sings beside it would hear that on a machine of two cores.
"""

from __future__ import annotations

import os
import threading
import time
from contextlib import suppress
from pathlib import Path

from serve_apps.priority import hold_back, let_go, may_return

_SECONDS = 0.2
"""Between two looks, each of which reads a small file for every thread of the parent."""
_SOON = 0.04
"""The same from a child's death until the next one is there, for ``_LONGEST`` at most."""
_CALM = 0.5
"""For which a process must look ready before it is let go: between two calls of its start it looks so, too."""
_LONGEST = 15.0
"""That a process is held back: where others compute all the time, it would never be ready."""


def nurse() -> None:
    """Look after the workers of the Ray that this process has started, as long as it runs."""
    for child in children(os.getpid()):
        with suppress(OSError):
            if Path(f"/proc/{child}/comm").read_text().strip() == "raylet":
                threading.Thread(target=Nursery(child).run, name="nursery", daemon=True).start()


class Nursery:
    """Looks at a process's children, those of Ray's ``raylet``. Where priorities cannot be given back it does nothing.

    Those that are there at the beginning are left alone.
    """

    def __init__(self, parent: int) -> None:
        self._parent = parent
        self._known = children(parent)
        self._held: dict[int, float] = {}
        """Since when."""
        self._unready: dict[int, float] = {}
        """When it was seen last that they were not ready."""
        self._stop = threading.Event()
        self._expecting = 0.0
        """Until when a new child is likely."""

    def run(self) -> None:
        """Until ``close``."""
        while may_return() and not self._stop.wait(_SOON if time.monotonic() < self._expecting else _SECONDS):
            self.look()
        for child in self._held:
            let_go(child)

    def look(self) -> None:
        """Once."""
        found, now = children(self._parent), time.monotonic()
        if self._known - found:
            self._expecting = now + _LONGEST
        for child in found - self._known:
            self._held[child], self._expecting = now, 0.0
        self._known = found
        for child, since in list(self._held.items()):
            if not ready(child):
                self._unready[child] = now
            gone = child not in found
            if gone or now >= self._unready.get(child, since) + _CALM or now > since + _LONGEST:
                del self._held[child]
                self._unready.pop(child, None)
                if not gone:
                    let_go(child)
            else:
                hold_back(child)  # again and again: threads come

    def close(self) -> None:
        """Stop looking."""
        self._stop.set()


def children(parent: int) -> set[int]:
    """Ids of a process's children."""
    found: set[int] = set()
    for task in Path(f"/proc/{parent}/task").glob("*/children"):
        try:
            found |= set(map(int, task.read_text().split()))
        except OSError:
            continue
    return found


def ready(worker: int) -> bool:
    """Whether a worker of Ray has become what it was started for."""
    try:
        title = Path(f"/proc/{worker}/cmdline").read_bytes()
    except OSError:
        return False
    starts = any(word in title for word in (b"__init__", b".initialize_and_get_metadata"))
    return title.startswith(b"ray::") and not starts and not title.startswith(b"ray::IDLE")
