"""From the computing thread of ``Live`` to the replicas of ``LiveEars``: who is there, who is asked, who answers.

Nothing of a stream is kept there, so a call that one replica does not answer in good time goes to another one as well,
and the first answer is taken.
"""

from __future__ import annotations

import itertools
import logging
import select
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

from rocktop_ray.errors import RocktopError, StageLostError
from rocktop_ray.live.far_ears import EarsFacts, EarsPlan, Hear, Heard
from serve_apps.jobs.remote import Refused
from serve_apps.live.transport.door import Address
from serve_apps.live.transport.door_line import FIRST_NUMBER, DoorLine
from serve_apps.live.transport.frames import lost
from serve_apps.losses import Losses

Call = tuple[str, tuple[Any, ...]]

LOOK_SECONDS = 1.5
_CONNECT_SECONDS, _OPEN_SECONDS, _SEND_SECONDS = 2.0, 120.0, 0.5
_MOST_SECONDS = 3.0
"""That a call may take, whoever is asked."""
_SILENT_SECONDS = 5.0
"""After which a replica that does not answer is hung up on."""
_RESTS_AFTER = 60.0
"""Seconds without a call after which nobody looks for new replicas."""
_MOST_LOSSES = 8
_WHO = "the process that hears for this stream"
_log = logging.getLogger(__name__)


class EarsLines:
    """Lines to all replicas that are there. ``hear`` is called by one thread; the rest may be by any."""

    def __init__(
        self,
        look: Callable[[], Sequence[Address] | None],
        over_serve: Callable[[Call, float], Any],
        told: Callable[[float, int], None] = lambda *_: None,
        *,
        place: int = 0,
    ) -> None:
        """
        Args:
            look: finds the side doors of all replicas, None if they have none. Blocks; raises StageLostError.
            over_serve: makes a call where there are no side doors, in so many seconds at most. Raises StageLostError.
            told: called after each ``hear`` with its seconds, and how many replicas were asked.
            place: number of this process among its like; they begin with different replicas.
        """
        self._look, self._over_serve, self._told, self._place = look, over_serve, told, place
        self._guard = threading.Lock()
        self._lines: dict[str, DoorLine] = {}
        self._ready: set[tuple[str, EarsPlan]] = set()
        """Replicas, and the plans that they have."""
        self._plans: set[EarsPlan] = set()
        self._doorless = False
        self._numbers = itertools.count(FIRST_NUMBER)
        self._used = float("-inf")
        self._wake, self._closed = threading.Event(), False
        self._watching: threading.Thread | None = None

    def open(self, plan: EarsPlan) -> EarsFacts:
        """Have ears loaded: by one replica before this returns, by the others soon. Raises what loading them does,
        StageLostError.
        """
        losses = Losses(_WHO, _MOST_LOSSES)
        while True:
            try:
                facts = self._opened(plan)
                break
            except StageLostError as error:
                time.sleep(losses.pause(error))
        with self._guard:
            self._plans.add(plan)
            if self._watching is None and not self._closed:
                self._watching = threading.Thread(target=self._keep_watch, name="ears", daemon=True)
                self._watching.start()
        self._wake.set()
        return facts

    def hear(self, call: Hear, patience: float) -> Heard:
        """A hop of some streams. patience: seconds until another replica is asked as well.

        Raises StageLostError if nobody answers, and what those who hear refuse with.
        """
        began = time.monotonic()
        self._used = began
        if self._doorless:
            answer, asked = self._over_serve(("hear", (call,)), _MOST_SECONDS), 1
        else:
            with self._guard:
                answer, asked = self._asked(("hear", (call,)), call.plan, patience)
        self._told(time.monotonic() - began, asked)
        if isinstance(answer, Refused):
            raise answer.error
        heard: Heard = answer
        return heard

    def close(self) -> None:
        """Hang up."""
        self._closed = True
        self._wake.set()
        with self._guard:
            for line in list(self._lines.values()):
                self._drop(line)

    def _opened(self, plan: EarsPlan) -> EarsFacts:
        """Load ears in the first replica that does. Raises StageLostError."""
        addresses = self._look()
        self._doorless = addresses is None
        if addresses is None:
            return _facts(self._over_serve(("open", (plan,)), _OPEN_SECONDS))
        for address in self._turned(list(addresses)):
            try:
                return self._make_ready(address, plan)
            except (OSError, StageLostError) as error:
                _log.warning("ears are not reached", extra={"replica": address.replica, "reason": str(error)[:200]})
        raise lost(_WHO)

    def _make_ready(self, address: Address, plan: EarsPlan) -> EarsFacts:
        """Over a line of its own, so that calls to the replica do not wait. Raises OSError, StageLostError."""
        line = DoorLine(address, _CONNECT_SECONDS)
        try:
            facts = _facts(line.ask(("open", (plan,)), _OPEN_SECONDS))
        except BaseException:
            line.close()
            raise
        with self._guard:
            if self._closed or self._lines.setdefault(line.replica, line) is not line:
                line.close()
            self._ready.add((line.replica, plan))
        return facts

    def _turned(self, addresses: list[Address]) -> list[Address]:
        ordered = sorted(addresses, key=lambda address: address.replica)
        first = self._place % max(1, len(ordered))
        return ordered[first:] + ordered[:first]

    def _asked(self, call: Call, plan: EarsPlan, patience: float) -> tuple[Any, int]:
        """The first answer, and how many were asked. The guard is held."""
        number, began = next(self._numbers), time.monotonic()
        asked: list[DoorLine] = []
        while (now := time.monotonic()) < began + _MOST_SECONDS:
            waiting = [line for line in asked if line.replica in self._lines]
            other = self._next(plan, asked)
            if other is not None and (not waiting or now >= began + patience * len(asked)):
                asked.append(other)
                try:
                    other.send(number, call, _SEND_SECONDS)
                except EOFError:
                    self._drop(other)
                continue
            if not waiting:
                self._wake.set()
                break
            until = began + (_MOST_SECONDS if other is None else patience * len(asked))
            for line, found, answer in self._arrived(until - now):
                if found == number:
                    _silent(asked[: asked.index(line)], began)
                    return answer, len(asked)
        _silent(asked, began)
        raise lost(_WHO)

    def _next(self, plan: EarsPlan, asked: Sequence[DoorLine]) -> DoorLine | None:
        """Who is asked next: those that stay, answer and have the ears before the others."""
        names = sorted(self._lines)

        def order(line: DoorLine) -> tuple[bool, bool, bool, int]:
            place = (names.index(line.replica) - self._place) % len(names)
            return (line.leaving, line.silent_since is not None, (line.replica, plan) not in self._ready, place)

        return min((line for line in self._lines.values() if line not in asked), key=order, default=None)

    def _arrived(self, seconds: float) -> list[tuple[DoorLine, int, Any]]:
        """Wait so long for answers, whoever sends them. The guard is held."""
        poll = select.poll()
        lines = {line.fileno(): line for line in self._lines.values()}
        for number in lines:
            poll.register(number, select.POLLIN)
        found: list[tuple[DoorLine, int, Any]] = []
        for number, _ in poll.poll(max(0.0, seconds) * 1e3):
            line = lines[number]
            try:
                answers = line.read()
            except EOFError:
                self._drop(line)
                continue
            if answers:
                line.silent_since = None
            found += [(line, *answer) for answer in answers]
        return found

    def _drop(self, line: DoorLine) -> None:
        line.close()
        if self._lines.get(line.replica) is line:
            del self._lines[line.replica]
            self._ready = {(replica, plan) for replica, plan in self._ready if replica != line.replica}

    def _keep_watch(self) -> None:
        """Look for new replicas while there are calls, load ears there, hang up where nobody is any more."""
        known = 0
        while not self._closed:
            woken = self._wake.wait(LOOK_SECONDS)
            self._wake.clear()
            with self._guard:
                self._tidy()
                fewer, known = len(self._lines) < max(1, known), len(self._lines)
            if not self._doorless and (woken or fewer or time.monotonic() - self._used < _RESTS_AFTER):
                self._meet()

    def _tidy(self) -> None:
        """Hang up on who leaves, if another one stays or none is needed, and on who has been silent for long."""
        self._arrived(0.0)
        stays = {name for name, _ in self._ready if name in self._lines and not self._lines[name].leaving}
        now = time.monotonic()
        rests = now - self._used > LOOK_SECONDS
        for line in list(self._lines.values()):
            silent = line.silent_since is not None and now - line.silent_since > _SILENT_SECONDS
            if silent or (line.leaving and (stays or rests)):
                self._drop(line)

    def _meet(self) -> None:
        try:
            addresses = self._look()
        except StageLostError as error:
            _log.info("no ears answer", extra={"reason": error.message[:200]})
            return
        for address in addresses or ():
            for plan in tuple(self._plans):
                if (address.replica, plan) in self._ready or self._closed:
                    continue
                try:
                    self._make_ready(address, plan)
                except (OSError, RocktopError) as error:
                    _log.warning("ears are not ready", extra={"replica": address.replica, "reason": str(error)[:200]})


def _silent(lines: Sequence[DoorLine], since: float) -> None:
    """They were asked before the one that answered."""
    for line in lines:
        line.silent_since = line.silent_since or since


def _facts(answer: Any) -> EarsFacts:
    if isinstance(answer, Refused):
        raise answer.error
    facts: EarsFacts = answer
    return facts
