"""The desk of live sessions: who sits, what is promised to them, and the states of those whose connection was lost."""

from __future__ import annotations

import asyncio
import hmac
import logging
import math
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from rocktop_ray.errors import BusyError, SessionGoneError, SessionTakenError, StorageError
from serve_apps.config import LiveConfig
from serve_apps.live.admission import Machine, busy, fits, longest_turn
from serve_apps.live.engine import LEASE_SECONDS, TAKE_SECONDS, HopCost, House
from serve_apps.observe.metrics import Metrics
from serve_apps.orders import VoiceRef

_log = logging.getLogger(__name__)

_LOOK_SECONDS = 0.05
_RETRY_SECONDS = 10.0
_RETRY_SLOW_SECONDS = 60.0
_LATE_SHARE, _LATE_SECONDS = 0.1, 5.0
"""Of the blocks between two renewals; and how long it is remembered."""


@dataclass
class _Seat:
    """One session on its connection."""

    sitting: str
    cost: HopCost | None
    """None: nothing is promised, as it has no deadlines, or is about to come in again."""
    live: bool
    until: float
    """When the lease ends."""
    late: float = float("-inf")
    """When its gateway said last that blocks were late."""


@dataclass
class _Parked:
    """What was kept of a session."""

    secret: str
    state: bytes
    until: float = field(default=float("inf"))
    """When it is dropped; not while the session sits."""


class LocalDesk:
    """Implements ``engine.Desk`` in this process. To be used on one event loop."""

    def __init__(
        self,
        config: LiveConfig | None = None,
        clock: Callable[[], float] = time.monotonic,
        *,
        at_once: int | None = None,
        cores: int | None = None,
    ) -> None:
        """at_once: replicas that have cores of their own; None: all of them. cores: that proxies, gateways and replicas
        share; None: more than they need.
        """
        self._config, self._clock = config or LiveConfig(), clock
        self._machine = Machine(
            replicas=min(self._config.replicas, at_once or self._config.replicas),
            threads=self._config.threads,
            cores=cores or math.inf,
            way=self._config.way_ms / 1e3,
        )
        self._seats: dict[str, _Seat] = {}
        self._parked: OrderedDict[str, _Parked] = OrderedDict()
        self._wanted: dict[str, str] = {}
        """By session the sitting that wants it."""
        self._metrics = Metrics()

    async def admit(self, session: str, voice: VoiceRef, rate: int, live: bool, *, sitting: str, cost: HopCost) -> None:
        """See ``engine.Desk``."""
        self._sweep()
        seat = self._seats.get(session)
        if seat is not None and seat.sitting != sitting:
            raise SessionTakenError("this session is used by another connection")
        self._check_room(session, voice, cost if live else None)
        self._seats[session] = _Seat(sitting, cost if live else None, live, self._clock() + LEASE_SECONDS)
        self._tell()

    async def renew(self, session: str, sitting: str, *, late: float = 0.0) -> House:
        """See ``engine.Desk``."""
        self._sweep()
        seat = self._seats.get(session)
        if seat is None:
            raise SessionGoneError("the session was given up, as its connection was silent for too long")
        if seat.sitting != sitting:
            raise SessionTakenError("this session is used by another connection")
        seat.until = self._clock() + LEASE_SECONDS
        if late > _LATE_SHARE:
            seat.late = self._clock()
        return House(len(self._seats), self._load(), wanted=session in self._wanted)

    async def leave(self, session: str, sitting: str, *, keep: float = 0.0) -> None:
        """See ``engine.Desk``."""
        seat = self._seats.get(session)
        if seat is None or seat.sitting == sitting:
            self._stand(session, keep)
        self._sweep()
        self._tell()

    async def park(self, session: str, secret: str, state: bytes, *, sitting: str) -> None:
        """See ``engine.Desk``."""
        seat = self._seats.get(session)
        if seat is not None and seat.sitting != sitting:
            raise SessionTakenError("this session is used by another connection")
        if len(state) > self._config.state_bytes:
            most = self._config.state_bytes >> 10
            raise StorageError(f"the session's state has {len(state) >> 10} KiB; at most {most} are kept", stage="live")
        found = self._parked.get(session)
        if found is not None and not _same(found.secret, secret):
            raise SessionTakenError("this session is another one's")
        until = float("inf") if seat is not None else self._clock() + self._config.resume_seconds
        self._parked[session] = _Parked(secret, state, until)
        self._parked.move_to_end(session)
        self._trim()
        self._tell()

    async def take(self, session: str, secret: str, *, sitting: str) -> bytes:
        """See ``engine.Desk``."""
        self._sweep()
        self._known(session, secret)
        end = self._clock() + TAKE_SECONDS
        try:
            while self._sits_elsewhere(session, sitting) and self._clock() < end:
                self._wanted[session] = sitting
                await asyncio.sleep(_LOOK_SECONDS)
                if self._wanted.get(session, sitting) != sitting:
                    raise SessionTakenError("this session is used by another connection")
        finally:  # cancelled, or another one wants it by now: nobody is sent away for this one
            if self._wanted.get(session) == sitting:
                del self._wanted[session]
        found = self._known(session, secret)
        # The seat is free, or its connection does not answer: it will hear of it when it renews.
        self._seats[session] = _Seat(sitting, None, False, self._clock() + LEASE_SECONDS)
        found.until = float("inf")
        return found.state

    def sessions(self) -> int:
        """How many sit."""
        return len(self._seats)

    def _known(self, session: str, secret: str) -> _Parked:
        found = self._parked.get(session)
        if not _same("" if found is None else found.secret, secret) or found is None:
            raise SessionGoneError("no such session is kept: it ended, or was away for too long; start a new one")
        return found

    def _sits_elsewhere(self, session: str, sitting: str) -> bool:
        self._sweep()
        seat = self._seats.get(session)
        return seat is not None and seat.sitting != sitting

    def _check_room(self, session: str, voice: VoiceRef, cost: HopCost | None) -> None:
        """Raise BusyError if there is none for ``session``; what it had so far would be given back."""
        config = self._config
        others = [seat for name, seat in self._seats.items() if name != session]
        free = sum(not seat.live for seat in others)
        if len(others) >= config.sessions or (cost is None and free >= config.free_sessions):
            self._metrics.live_refused("sessions")
            raise BusyError(
                "as many live sessions run as may: try again in a while" if config.sessions else "live is turned off",
                retry_after=_RETRY_SECONDS,
            )
        if cost is None:
            return
        costs = [seat.cost for seat in others if seat.cost is not None]
        if fits([*costs, cost], self._machine, config.load):
            if session not in self._seats:
                self._check_late([seat for seat in others if seat.cost is not None])
            return
        share = max(busy([cost], self._machine), longest_turn([cost], self._machine.replicas))
        _log.info("live session refused", extra={"voice": voice.name, "share": share, "sessions": len(costs)})
        if not fits([cost], self._machine, config.load):
            self._metrics.live_refused("slow")
            raise BusyError(
                f"this machine needs {share:.0%} of the time for this voice and {config.load:.0%} may be promised: "
                "choose another voice, or pace 'free'",
                retry_after=_RETRY_SLOW_SECONDS,
            )
        self._metrics.live_refused("load")
        raise BusyError(
            "one session more, and the others could not be answered in time: try again in a while",
            retry_after=_RETRY_SECONDS,
        )

    def _check_late(self, live: Sequence[_Seat]) -> None:
        """Raise BusyError where half of those who sit are answered late as it is: the machine has less time than was
        measured, or somebody else has it.
        """
        since = self._clock() - _LATE_SECONDS
        if live and 2 * sum(seat.late > since for seat in live) >= len(live):
            self._metrics.live_refused("late")
            raise BusyError(
                "those who sing here are answered late at the moment: try again in a while", retry_after=_RETRY_SECONDS
            )

    def _load(self) -> float:
        costs = [seat.cost for seat in self._seats.values() if seat.cost is not None]
        return busy(costs, self._machine)

    def _stand(self, session: str, keep: float = math.inf) -> None:
        """Free the seat; what was parked waits from now on, for ``keep`` seconds at most."""
        self._seats.pop(session, None)
        if keep <= 0:
            self._parked.pop(session, None)
        elif session in self._parked:
            self._parked[session].until = self._clock() + min(keep, self._config.resume_seconds)

    def _sweep(self) -> None:
        now = self._clock()
        for session in [session for session, seat in self._seats.items() if seat.until < now]:
            _log.warning("a live session was given up: its gateway is silent")
            self._stand(session)
        for session in [session for session, parked in self._parked.items() if parked.until < now]:
            del self._parked[session]

    def _trim(self) -> None:
        """Keep to the bounds: those go first that would go soonest, last those whose sessions still sit."""
        config = self._config
        total = sum(len(parked.state) for parked in self._parked.values())
        for session in sorted(self._parked, key=lambda name: self._parked[name].until):
            if len(self._parked) <= config.most_parked and total <= config.parked_bytes:
                return
            total -= len(self._parked.pop(session).state)

    def _tell(self) -> None:
        free = sum(not seat.live for seat in self._seats.values())
        total = sum(len(parked.state) for parked in self._parked.values())
        self._metrics.live_house(self._load(), len(self._seats) - free, free, len(self._parked), total)


def _same(one: str, other: str) -> bool:
    """Compared in a time that tells nothing of where they differ."""
    return hmac.compare_digest(one.encode(), other.encode())
