"""A run that is asked to end: ``ray job stop``, SIGTERM, or whoever puts an object ``stop`` beside its checkpoints.

The run ends at its next station with a checkpoint, and the same command goes on with it later. Who asks need not reach
the workers: all see the run's store.
"""

from __future__ import annotations

import logging
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from rocktop_ray.errors import RocktopError
from rocktop_ray.store.storage import Storage

STOP = "stop"
"""Name of the object; what it holds does not matter."""
_log = logging.getLogger(__name__)


class Asked:
    """Whether the run was asked to end; small enough to pickle."""

    def __init__(self, run: Storage) -> None:
        self._run = run

    def __call__(self) -> bool:
        """A store that cannot be asked says no: the next checkpoint will tell of its trouble."""
        try:
            return self._run.exists(STOP)
        except RocktopError as error:
            _log.warning("cannot see whether the run should end: %s", error.message)
            return False

    def ask(self) -> None:
        """Raises StorageError."""
        self._run.write(STOP, b"")

    def forget(self) -> None:
        """A new start is not held to what an earlier one was asked. Raises StorageError."""
        self._run.delete(STOP)


@contextmanager
def ended_by_signal(asked: Asked) -> Iterator[None]:
    """Meanwhile the first SIGTERM asks the run to end; a second one, or one that cannot be passed on, does at once
    what it did before. Join Ray first, which sets a handler of its own. Only the main thread hears of signals: in
    others this does nothing.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def hear(number: int, frame: FrameType | None) -> None:
        signal.signal(signal.SIGTERM, before)
        try:
            asked.ask()
        except RocktopError as error:
            _log.error("the run could not be asked to end: %s", error.message)
            signal.raise_signal(number)
            return
        _log.info("asked to end: the run stops at its next line of the log, with a checkpoint")

    before = signal.signal(signal.SIGTERM, hear) or signal.SIG_DFL
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
