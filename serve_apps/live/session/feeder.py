"""Feeds the engine with the pieces of one session, and repairs what a lost replica breaks.

While one feed is under way, the next one may follow it already, so that a block that came late does not hold up all
that come after it.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, replace

from rocktop_ray.errors import RocktopError, StageLostError, StateMissingError
from serve_apps.live.engine import Fed, Feed, LiveEngine, Piece
from serve_apps.live.session.course import Course
from serve_apps.live.session.limits import LiveLimits
from serve_apps.live.session.line import Line
from serve_apps.live.session.tally import Tally
from serve_apps.live.session.tape import Cut

_FIRST_PAUSE, _LONGEST_PAUSE = 0.05, 1.0
_REST, _LONGEST_REST = 1.0, 8.0
_AHEAD = 2
"""Feeds that are under way at once, where the engine takes more than one."""
_SOON = 10.0
"""Seconds within which falling behind again means that there is too much to do."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Given:
    """A feed that is under way."""

    batch: Sequence[Cut]
    feed: Feed
    rested: Sequence[bool]
    answer: asyncio.Task[Fed]


class Feeder:
    """Calls to the engine, in order.

    Args:
        course: whose pieces are fed.
        engine: who computes.
        line: where answers go.
    """

    def __init__(
        self,
        course: Course,
        engine: LiveEngine,
        limits: LiveLimits,
        tally: Tally,
        line: Line,
    ) -> None:
        self._course, self._engine, self._limits, self._tally, self._line = course, engine, limits, tally, line
        self._work = asyncio.Event()
        self._given: deque[_Given] = deque()
        self._queues = False
        self._send_state = course.save.state is not None
        self._replay = course.save.state is not None
        self._lost_at: float | None = None
        self._pause = _FIRST_PAUSE
        self._rest, self._rest_until, self._behind_at = 0.0, float("-inf"), float("-inf")

    @property
    def lost(self) -> bool:
        """Whether a replica was lost, and no other one has taken over yet."""
        return self._lost_at is not None

    def wake(self) -> None:
        """There may be new pieces."""
        self._work.set()

    async def run(self) -> None:
        """Feed for ever. Raises StageLostError when nobody took over in time, and what else the engine raises."""
        try:
            while True:
                self._work.clear()
                if self._given and self._given[0].answer.done():
                    await self._took(self._given.popleft())
                elif self._course.behind and len(self._given) < (_AHEAD if self._queues else 1):
                    self._give()
                else:
                    await self._work.wait()
        finally:
            await self._drop()

    def _give(self) -> None:
        course = self._course
        batch = course.batch(all_since=self._replay)
        rested = self._resting(batch, time.monotonic())
        feed = Feed(
            session=course.head.session,
            voice=batch[0].how.voice,
            rate=course.head.rate,
            multiple=course.head.grid,
            seq=batch[0].index,
            pieces=tuple(
                Piece(cut.samples, cut.how.settings, cut.how.bypass, rest)
                for cut, rest in zip(batch, rested, strict=True)
            ),
            state=course.save.state if self._send_state and batch[0].index == course.save.index else None,
            want_state=course.wants_save(batch),
            live=course.head.live,
        )
        answer = asyncio.create_task(self._fed(feed, self._spare(feed, batch)))
        answer.add_done_callback(lambda _: self._work.set())
        course.gave(batch, save=feed.want_state)
        self._given.append(_Given(batch, feed, rested, answer))

    async def _fed(self, feed: Feed, spare: Feed | None) -> Fed:
        async with asyncio.timeout(self._limits.hang):
            return await self._engine.feed(feed, spare)

    async def _took(self, given: _Given) -> None:
        """The engine answered the first of the feeds that are under way."""
        course, feed = self._course, given.feed
        try:
            fed = given.answer.result()
        except StateMissingError as error:
            await self._drop()
            if feed.state is not None or feed.seq == course.save.index == 0:
                await self._mourn(error)
            self._again()
            return
        except TimeoutError as error:
            await self._mourn(error)
            return
        except RocktopError as error:
            if not error.retryable:
                raise
            await self._mourn(error)
            return
        self._recovered(feed, fed)
        self._line.told(course.took(given.batch, fed, given.rested))

    async def _drop(self) -> None:
        """Nobody waits for what is under way any more."""
        given = [each.answer for each in self._given]
        self._given.clear()
        for answer in given:
            answer.cancel()
        await asyncio.gather(*given, return_exceptions=True)

    def _spare(self, feed: Feed, batch: Sequence[Cut]) -> Feed | None:
        """The feed as another replica needs it; None where nobody waits for it."""
        save, before = self._course.save, self._course.before(batch)
        if not batch[0].hurry or before is None:
            return None
        missed = tuple(Piece(cut.samples, cut.how.settings, cut.how.bypass) for cut in before)
        return replace(feed, seq=save.index, pieces=missed + feed.pieces, state=save.state)

    def _recovered(self, feed: Feed, fed: Fed) -> None:
        self._tally.fed(fed)
        self._queues = fed.queues
        self._send_state = self._replay = False
        self._pause = _FIRST_PAUSE
        if self._lost_at is not None:
            seconds = time.monotonic() - self._lost_at
            self._lost_at = None
            self._behind_at = float("-inf")
            _log.info("live session recovered", extra={"session": feed.session, "seconds": round(seconds, 3)})
            self._line.notice("recovered", "the conversion goes on", round(seconds, 3))

    def _again(self) -> None:
        self._course.rewind()
        self._queues = False
        self._send_state = self._replay = True

    async def _mourn(self, error: BaseException) -> None:
        """A replica is lost: another one gets the state, and the pieces since."""
        now = time.monotonic()
        await self._drop()
        self._again()
        self._tally.lost()
        if self._lost_at is None:
            self._lost_at = now
            self._line.notice("replica-lost", "what computed was lost; another one takes over")
            _log.warning("live replica lost", extra={"session": self._course.head.session, "why": str(error)[:300]})
        elif now - self._lost_at > self._limits.recover:
            raise StageLostError("nobody is left to compute this stream; resume it a little later") from error
        else:
            await asyncio.sleep(self._pause)
            self._pause = min(_LONGEST_PAUSE, 2 * self._pause)

    def _resting(self, batch: Sequence[Cut], now: float) -> list[bool]:
        """Which pieces go past the networks. To catch up: those that were answered already. And for some seconds all
        of them, if catching up was of no use: better the take for a while than a stutter.
        """
        patience = self._limits.skip if self._lost_at is None else self._limits.skip_lost
        if not batch[0].hurry:
            return [False] * len(batch)
        if now < self._rest_until:
            return [cut.hurry for cut in batch]
        if now - batch[0].arrived <= patience:
            return [False] * len(batch)
        answered = [cut.hurry and cut.end <= self._course.answers.at for cut in batch]
        if self._lost_at is not None:
            return answered
        again = now - self._behind_at < _SOON + self._rest
        self._behind_at = now
        if again:
            self._rest = min(_LONGEST_REST, 2 * self._rest) if self._rest else _REST
            self._rest_until = now + self._rest
            self._line.notice("overloaded", "the server is too busy: the take itself is heard", self._rest)
            return [cut.hurry for cut in batch]
        self._rest = 0.0
        return answered
