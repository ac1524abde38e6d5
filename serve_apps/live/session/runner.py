"""One connection of a live session: it is heard, answered in time, told statistics, and parked when it breaks.

All waiting is in a few tasks: listen, send, feed the engine, answer what is overdue, look around, and attend to the
desk. What they share is in ``Course``; nothing of it waits.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from rocktop_ray.errors import RocktopError, SessionGoneError, SessionTakenError
from rocktop_ray.live.messages import Ended, Flags, Problem, Started, Stats
from rocktop_ray.live.protocol import SAMPLE_BYTES
from serve_apps.live.engine import RENEW_SECONDS, House, LiveEngine
from serve_apps.live.session.changes import Changes
from serve_apps.live.session.course import Course
from serve_apps.live.session.endings import DrainingError, Ending, Finished, ending_of
from serve_apps.live.session.feeder import Feeder
from serve_apps.live.session.limits import LiveLimits
from serve_apps.live.session.line import Line
from serve_apps.live.session.listener import Listener
from serve_apps.live.session.parking import Save, pack_save
from serve_apps.live.session.seat import Seat
from serve_apps.live.session.tally import Tally
from serve_apps.live.session.wire import GoneError, SilentError, TooMuchError, Wire

_LOOK = 0.25
"""Seconds between two looks at whether this gateway is to stop."""
_MOMENT, _MOVE_SECONDS, _LEAVE_SECONDS = 1.5, 20.0, 5.0
"""For the desk to answer, which may be starting itself; Serve waits ``app.SHUTDOWN_SECONDS`` for a gateway."""
_UNUSED_SECONDS = 15.0
"""That a session without any block waits for its client: there is little to go on with."""
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Behind:
    """What stands behind all sessions of a gateway."""

    engine: LiveEngine
    limits: LiveLimits
    draining: Callable[[], bool]
    """Whether this gateway is about to stop."""
    explain: Callable[[BaseException], Problem]
    """An error as the client may see it."""
    sessions: Callable[[], int] = lambda: 1
    """How many this gateway has."""


class Runner:
    """One session, while one connection lasts.

    Args:
        course: the session, new or resumed.
        changes: with the voice that it begins with.
        received: number of the last answer that the client got on another connection; -1 for none.
        level: seconds by which the client is ahead of time; below 0 for what it missed as a connection was lost.
        catch_up: seconds of audio that may come without deadlines, for the same reason.
    """

    def __init__(
        self,
        behind: Behind,
        course: Course,
        changes: Changes,
        seat: Seat,
        wire: Wire,
        tally: Tally,
        *,
        received: int = -1,
        level: float = 0.0,
        catch_up: float = 0.0,
    ) -> None:
        head, limits = course.head, behind.limits
        self._behind, self._limits, self._course, self._changes = behind, limits, course, changes
        self._seat, self._wire, self._tally = seat, wire, tally
        window = limits.window_of(head.live, head.block / head.rate)
        self._line = Line(course, wire, tally, received, window, limits.beyond)
        self._feeder = Feeder(course, behind.engine, limits, tally, self._line)
        self._listener = Listener(
            course, changes, self._line, limits, level, catch_up, behind.explain, wake=self._feeder.wake
        )
        self._parked: Save | None = None
        self._house = House(0, 0.0)
        self._counted = course.totals

    async def run(self) -> Ending:
        """Until the stream, or the connection, ends. The session is then gone, or parked at the desk."""
        tasks: list[asyncio.Task[None]] = []
        try:
            await self._park()
            self._begin()
            for work in (
                self._wire.run(),
                self._listener.run(self._wire),
                self._feeder.run(),
                self._answer_overdue(),
                self._look_around(),
                self._attend(),
            ):
                tasks.append(asyncio.create_task(work))
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            error: BaseException = next(iter(done)).exception() or RuntimeError("a task ended")
        except Exception as found:  # noqa: BLE001 - whatever it is, the session is put away and the client told
            error = found
        except asyncio.CancelledError:
            await asyncio.shield(self._put_away(tasks, DrainingError("this server stops")))
            raise
        return await asyncio.shield(self._put_away(tasks, error))

    @property
    def session(self) -> str:
        """Its id."""
        return self._seat.session

    def facts(self) -> dict[str, Any]:
        """What the log tells of it."""
        course, totals = self._course, self._course.totals
        return {
            "session": self._seat.session,
            "voice": course.how.voice.name,
            "rate": course.head.rate,
            "pace": course.head.pace,
            "audio_seconds": round(course.seconds, 3),
            "late": totals.late,
            "lost": totals.lost,
        }

    def _begin(self) -> None:
        course, head = self._course, self._course.head
        delay = course.answers.delay
        started = Started(
            session=head.session,
            secret=self._seat.secret,
            voice=course.how.voice.name,
            rate=head.rate,
            delay=delay,
            delay_ms=round(delay / head.rate * 1e3, 3),
            window=round(self._line.window, 6),
            next=course.tape.seq,
            settings=asdict(course.how.settings),
            exact=self._changes.chosen.facts.exact,
        )
        self._line.post(started)
        self._line.again()
        self._feeder.wake()

    async def _put_away(self, tasks: Sequence[asyncio.Task[None]], error: BaseException) -> Ending:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._changes.close()
        if self._course.done and isinstance(error, GoneError):
            error = Finished()
        ending = ending_of(error)
        if not isinstance(error, RocktopError | Finished | GoneError):
            _log.error("live session failed", exc_info=error, extra={"session": self._seat.session})
        reason = error.message if isinstance(error, DrainingError) else "the stream has ended"
        if ending.code is not None and not isinstance(error, Finished | DrainingError):
            problem = self._behind.explain(error)
            reason = problem.detail  # the error's own words may tell places of this machine
            with contextlib.suppress(SilentError):
                self._line.post(problem)
        await self._leave(ending.keep if self._course.tape.seq else min(ending.keep, _UNUSED_SECONDS))
        if ending.code is not None:
            await self._wire.close(ending.code, reason)
        return ending

    async def _leave(self, keep: float) -> None:
        try:
            async with asyncio.timeout(_LEAVE_SECONDS):
                if keep:
                    await self._seat.park(pack_save(self._course.parked()))
        except (RocktopError, TimeoutError) as error:
            _log.warning("live session not parked", extra={"session": self._seat.session, "why": str(error)})
        with contextlib.suppress(RocktopError, TimeoutError):
            async with asyncio.timeout(_LEAVE_SECONDS):
                await self._seat.leave(keep=keep)
                if not keep or self._course.done:
                    await self._behind.engine.forget(self._seat.session)

    async def _answer_overdue(self) -> None:
        """What cannot wait goes out as it is. Raises Finished when all is out."""
        course, line = self._course, self._line
        while True:
            line.news.clear()
            if course.done:
                line.post(Ended(course.samples, course.totals.late, course.totals.lost))
                await self._wire.sent()
                raise Finished
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(min(60.0, max(0.0, course.due - time.monotonic()))):
                    await line.news.wait()
            if course.due <= time.monotonic():
                line.told(course.overdue(time.monotonic(), Flags.LOST if self._feeder.lost else Flags.LATE))

    async def _look_around(self) -> None:
        """Statistics; whether the client is silent, or this gateway is to stop."""
        told, head = time.monotonic(), self._course.head
        most = self._limits.backlog_of(head.rate * SAMPLE_BYTES[head.format])
        while True:
            await asyncio.sleep(_LOOK)
            now = time.monotonic()
            self._course.crowd = max(1, self._behind.sessions())
            if self._behind.draining():
                await self._move()
            self._line.look()
            quiet = now - self._listener.heard > self._limits.silence
            if quiet and self._line.room.is_set() and not self._course.ending:  # nothing has to follow the end
                raise SilentError(f"nothing came from the client for {self._limits.silence:g} s")
            if not self._line.room.is_set() and self._wire.backlog() > most:
                raise TooMuchError(f"more than {self._line.window:g} s of audio wait for answers: wait for them, too")
            if now - told >= 1:
                told = now
                self._line.post(self._stats())

    async def _move(self) -> None:
        """This gateway is about to stop, the desk with it maybe: a new one has the session before the client is told
        to go there. Until then it goes on here. A desk that stops, too, is out of reach after a moment.
        """
        self._line.notice("draining", "this server is about to stop; the session goes on at another one")
        try:
            async with asyncio.timeout(_MOVE_SECONDS):
                await asyncio.sleep(_MOMENT)
                self._house = await self._seat.renew()
                await self._seat.park(pack_save(self._course.parked()))
        except (RocktopError, TimeoutError) as error:
            _log.warning("live session not parked", extra={"session": self._seat.session, "why": str(error)})
        raise DrainingError("this server is about to stop: resume, and another one goes on with the session")

    def _stats(self) -> Stats:
        compute, queue, lateness = self._tally.take()
        course, totals = self._course, self._course.totals
        return Stats(
            seconds=round(course.seconds, 3),
            seq=self._tally.answered,
            kept=(self._parked or course.save).seq - 1,
            compute_ms=compute,
            queue_ms=queue,
            lateness_ms=lateness,
            late=totals.late,
            lost=totals.lost,
            bypassed=totals.bypassed,
            load=round(self._house.load, 4),
            sessions=self._house.sessions,
        )

    async def _attend(self) -> None:
        """The desk hears of the session every second, and keeps it: should this gateway be killed, little is lost."""
        while True:
            try:
                self._house = await self._seat.renew(late=self._late())
                if self._house.wanted:
                    raise SessionTakenError("another connection goes on with this session")
                await self._park()
            except (SessionTakenError, SessionGoneError):
                raise
            except RocktopError as error:
                _log.warning("live desk not reached", extra={"why": error.message})
            await asyncio.sleep(RENEW_SECONDS)

    def _late(self) -> float:
        """Share of the blocks since the last call that were answered late."""
        before, self._counted = self._counted, self._course.totals
        return (self._counted.late - before.late) / max(1, self._counted.answered - before.answered)

    async def _park(self) -> None:
        save = self._course.save
        if save is not self._parked:
            await self._seat.park(pack_save(save))
            self._parked = save
