"""Who is next: first in, first out for each owner, and the owners in turn."""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable


class FairQueue:
    """Ids that wait. Owners take turns, so one who queues two hundred does not keep the others waiting."""

    def __init__(self) -> None:
        self._waiting: dict[Hashable, deque[str]] = {}
        """By owner; the first owner is the next one served. No queue is empty."""
        self._owners: dict[str, Hashable] = {}
        self._order: dict[str, int] | None = None

    def __len__(self) -> int:
        return len(self._owners)

    def push(self, id: str, owner: Hashable) -> None:
        """Queue an id behind its owner's others; a new owner comes behind the other owners."""
        self._waiting.setdefault(owner, deque()).append(id)
        self._owners[id] = owner
        self._order = None

    def peek(self) -> str | None:
        """The next id, None if none waits."""
        return next(iter(self._waiting.values()))[0] if self._waiting else None

    def pop(self) -> str:
        """Take the next id; its owner goes to the end of the line. Raises StopIteration if none waits."""
        owner, ids = next(iter(self._waiting.items()))
        id = ids.popleft()
        del self._waiting[owner], self._owners[id]
        if ids:
            self._waiting[owner] = ids
        self._order = None
        return id

    def remove(self, id: str) -> None:
        """Take out an id that waits."""
        owner = self._owners.pop(id)
        ids = self._waiting[owner]
        ids.remove(id)
        if not ids:
            del self._waiting[owner]
        self._order = None

    def position(self, id: str) -> int | None:
        """How many are served before ``id`` if nothing changes; None if it does not wait."""
        if self._order is None:
            self._order = {id: place for place, id in enumerate(self._in_turn())}
        return self._order.get(id)

    def _in_turn(self) -> list[str]:
        lines = [list(ids) for ids in self._waiting.values()]
        longest = max(map(len, lines), default=0)
        return [line[turn] for turn in range(longest) for line in lines if turn < len(line)]
