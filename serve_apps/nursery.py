"""Processes that Ray starts while the service runs, in the place of lost ones, hold up nobody until they are ready.

To start a worker takes Ray two seconds of a core, before any code of ours runs in it: two imports of Ray and one of
Serve. Whoever sings beside it would hear that on a machine of two cores.
"""

from __future__ import annotations

import os
import threading
from contextlib import suppress
from pathlib import Path

from serve_apps.priority import hold_back, let_go, may_return

_SECONDS = 0.2
"""Between two looks, each of which reads a small file for every thread of the parent."""
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
        self._stop = threading.Event()

    def run(self) -> None:
        """Until ``close``."""
        while may_return() and not self._stop.wait(_SECONDS):
            self.look()
        for child in self._held:
            let_go(child)

    def look(self) -> None:
        """Once."""
        found = children(self._parent)
        for child in found - self._known:
            self._held[child] = 0.0
        self._known = found
        for child in list(self._held):
            self._held[child] += _SECONDS
            if child not in found:
                del self._held[child]
            elif ready(child) or self._held[child] > _LONGEST:
                del self._held[child]
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
    return title.startswith(b"ray::") and b"__init__" not in title and not title.startswith(b"ray::IDLE")
