"""Loaded voices, as many as memory allows: shared by the calls of a replica, and never freed while one is in use."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Generic, Protocol, TypeVar

from rocktop_ray.voices.open import Voice


class Named(Protocol):
    """A reference to a voice; two of the same ``id`` mean the same content."""

    @property
    def id(self) -> str:
        """Key of the loaded voice."""


Ref = TypeVar("Ref", bound=Named)


@dataclass(frozen=True)
class LeasedVoice:
    """A voice that stays while its lease lasts."""

    voice: Voice
    loaded_seconds: float
    """Time that this lease spent on loading it, or on waiting until another had; 0 if it was loaded."""


@dataclass(frozen=True)
class VoiceCacheStats:
    """Counters since the start, and what is held now."""

    hits: int = 0
    """Leases that loaded nothing (at most they waited for another's load)."""
    misses: int = 0
    failures: int = 0
    """Misses whose load failed."""
    evictions: int = 0
    loaded: int = 0
    in_use: int = 0
    loading: int = 0


@dataclass(eq=False)
class _Slot(Generic[Ref]):
    ref: Ref
    ready: Future[Voice]
    users: int = 1


class VoiceCache(Generic[Ref]):
    """At most ``most`` voices that nobody uses or a few more that are in use; the longest unused goes first.

    Calls for one voice share one load; loads of different voices run side by side. A load that fails is told to all
    who wait for it, and forgotten. Room is made after a load, not before: a load that fails costs nobody a voice.
    """

    def __init__(self, open_: Callable[[Ref], Voice], most: int) -> None:
        """open_: loads a voice; called from the threads that lease, several at once. Raises ValueError if most < 1."""
        if most < 1:
            raise ValueError(f"most must be at least 1, not {most}")
        self._open, self._most = open_, most
        self._guard = threading.Lock()
        self._slots: OrderedDict[str, _Slot[Ref]] = OrderedDict()
        self._stats = VoiceCacheStats()

    @contextmanager
    def lease(self, ref: Ref) -> Iterator[LeasedVoice]:
        """The voice, held while the block runs. Blocks while it is loaded; raises what ``open_`` raises."""
        began = time.monotonic()
        while True:
            slot, mine = self._enter(ref)
            if mine:
                self._load(slot)
            waited = not slot.ready.done() or mine
            error = slot.ready.exception()
            if error is None:
                break
            if mine or slot.ref == ref:
                raise error
            # The other's reference led nowhere (its link may have run out); this one may still.
        try:
            yield LeasedVoice(slot.ready.result(), time.monotonic() - began if waited else 0.0)
        finally:
            self._leave(slot)

    def loaded(self) -> list[str]:
        """Ids of the voices that are ready, the longest unused first."""
        with self._guard:
            return [name for name, slot in self._slots.items() if slot.ready.done()]

    def stats(self) -> VoiceCacheStats:
        """Counters for metrics."""
        with self._guard:
            ready = [slot for slot in self._slots.values() if slot.ready.done()]
            in_use = sum(slot.users > 0 for slot in ready)
            return replace(self._stats, loaded=len(ready), in_use=in_use, loading=len(self._slots) - len(ready))

    def _enter(self, ref: Ref) -> tuple[_Slot[Ref], bool]:
        """The voice's slot, used once more; True if it is new and the caller has to load it."""
        with self._guard:
            slot = self._slots.get(ref.id)
            if slot is not None:
                slot.users += 1
                self._slots.move_to_end(ref.id)
                self._count(hits=1)
                return slot, False
            slot = self._slots[ref.id] = _Slot(ref, Future())
            self._count(misses=1)
            return slot, True

    def _load(self, slot: _Slot[Ref]) -> None:
        try:
            voice = self._open(slot.ref)
        except BaseException as error:
            with self._guard:
                del self._slots[slot.ref.id]
                self._count(failures=1)
            slot.ready.set_exception(error)
            raise
        with self._guard:
            slot.ready.set_result(voice)
            evicted = self._trim()
        evicted.clear()  # freed without the lock

    def _leave(self, slot: _Slot[Ref]) -> None:
        with self._guard:
            slot.users -= 1
            self._slots.move_to_end(slot.ref.id)
            evicted = self._trim()
        evicted.clear()

    def _trim(self) -> list[_Slot[Ref]]:
        """Take out what is too much. The lock is held."""
        over = sum(slot.ready.done() for slot in self._slots.values()) - self._most
        idle = [slot for slot in self._slots.values() if slot.users == 0][: max(0, over)]
        for slot in idle:
            del self._slots[slot.ref.id]
        self._count(evictions=len(idle))
        return idle

    def _count(self, **more: int) -> None:
        self._stats = replace(self._stats, **{name: getattr(self._stats, name) + n for name, n in more.items()})
