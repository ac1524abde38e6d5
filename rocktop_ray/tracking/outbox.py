"""Hands work to a store from a thread of its own, in order, so that a store that is slow or down stops nobody.

What a store refuses is dropped and told once. While it is down, work waits in memory, up to a bound; the pauses between
tries grow, and when it is back what waited is delivered.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from rocktop_ray.errors import RocktopError
from rocktop_ray.tracking.place import masked

_log = logging.getLogger(__name__)

_TRIES = 3
"""Tries of one parcel before the store itself is asked whether it is down."""


@dataclass(frozen=True)
class Parcel:
    """Something to be delivered."""

    work: Callable[[], None]
    """Raises RocktopError; may be called again after it failed."""
    what: str
    """For messages: ``values``, ``samples``..."""
    bytes: int = 0
    """Of memory that it holds."""
    vital: bool = False
    """Without it nothing that follows makes sense: it is never dropped for room, and if refused, all is given up."""


class Outbox:
    """Work for one store. ``put`` never waits for it."""

    def __init__(
        self,
        alive: Callable[[], None],
        *,
        most_bytes: int = 64 << 20,
        first_pause: float = 1.0,
        longest_pause: float = 30.0,
    ) -> None:
        """
        Args:
            alive: returns if the store answers, raises RocktopError if not.
            most_bytes: held while the store is down; beyond, files go first, the oldest first.
            first_pause: seconds after a first failure; each further pause is twice as long, to ``longest_pause``.
        """
        self._alive, self._most = alive, most_bytes
        self._first, self._longest = first_pause, longest_pause
        self._waiting: deque[Parcel] = deque()
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._held = self._lost = 0
        self._busy = self._closing = self._given_up = self._down = False
        self._told: set[str] = set()

    def put(self, parcel: Parcel) -> None:
        """Deliver this after what was put before. After ``close``, or when all was given up, it is dropped."""
        with self._changed:
            if self._closing or self._given_up:
                return
            self._waiting.append(parcel)
            self._held += parcel.bytes
            while self._held > self._most and (victim := self._victim()) is not None:
                self._waiting.remove(victim)
                self._held -= victim.bytes
                self._lost += 1
                self._tell("room", f"tracking holds more than {self._most >> 20} MiB back: some {victim.what} are lost")
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="tracking", daemon=True)
                self._thread.start()
            self._changed.notify_all()

    def flush(self, seconds: float) -> bool:
        """Wait until all is delivered; False if it was not in this time."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._waiting and not self._busy, seconds)

    def close(self, seconds: float) -> int:
        """Deliver what waits, for at most this long, and end. Returns how many parcels were lost in all."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        if self._thread is not None:
            self._thread.join(seconds)
        with self._changed:
            left = len(self._waiting) + self._busy
            self._waiting.clear()
            self._lost += left
            self._given_up = True
            self._changed.notify_all()
            if left:
                _log.warning("tracking was not reached in %g s: %d entries are lost", seconds, left)
            return self._lost

    def _run(self) -> None:
        while (parcel := self._next()) is not None:
            try:
                self._deliver(parcel)
            except Exception as error:  # noqa: BLE001, whatever a store's client does must not end the run beside it
                said = masked(str(error))[:300]
                _log.error("tracking lost some %s: %s: %s", parcel.what, type(error).__name__, said)
                self._lost += 1
            with self._changed:
                self._busy = False
                self._changed.notify_all()

    def _next(self) -> Parcel | None:
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._closing or self._given_up)
            if self._given_up or not self._waiting:
                return None
            self._busy = True
            parcel = self._waiting.popleft()
            self._held -= parcel.bytes
            return parcel

    def _deliver(self, parcel: Parcel) -> None:
        tries = faults = 0
        while not self._given_up:
            try:
                parcel.work()
            except RocktopError as error:
                tries += 1
                if not error.retryable:
                    self._refused(parcel, error)
                    return
                if tries >= _TRIES:
                    if self._answers():
                        faults += 1
                        if faults == 2:
                            self._refused(parcel, error)
                            return
                        self._is_back()
                        continue  # it may have come back just between the two
                    faults = 0
                    self._fell_silent(error)
                self._pause(tries)
            else:
                self._is_back()
                return

    def _answers(self) -> bool:
        try:
            self._alive()
        except RocktopError:
            return False
        return True

    def _pause(self, tries: int) -> None:
        with self._changed:
            if self._closing:  # somebody waits for the end: ask again soon
                self._changed.wait_for(lambda: self._given_up, self._first)
            else:
                pause = min(self._first * 2 ** min(tries - 1, 20), self._longest)
                self._changed.wait_for(lambda: self._given_up or self._closing, pause)

    def _refused(self, parcel: Parcel, error: RocktopError) -> None:
        self._lost += 1
        if parcel.vital:
            with self._changed:
                self._given_up = True
                self._lost += len(self._waiting)
                self._waiting.clear()
            _log.warning("this run is not tracked: %s", error.message)
        else:
            self._tell(parcel.what, f"tracking lost some {parcel.what}: {error.message}")

    def _fell_silent(self, error: RocktopError) -> None:
        if not self._down:
            self._down = True
            _log.warning("%s; the run goes on, and is written down when tracking is back", error.message)

    def _is_back(self) -> None:
        if self._down:
            self._down = False
            _log.warning("tracking is back; what waited is being written down")

    def _victim(self) -> Parcel | None:
        """What to drop for room: the oldest file, else the oldest of all."""
        able = [parcel for parcel in self._waiting if not parcel.vital]
        return next((parcel for parcel in able if parcel.bytes > 1 << 15), able[0] if able else None)

    def _tell(self, about: str, message: str) -> None:
        if about not in self._told:
            self._told.add(about)
            _log.warning(message)
