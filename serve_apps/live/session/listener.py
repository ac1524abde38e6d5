"""Hears the client of one session: checks what it sends, and that it does not send more than it may."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable

from rocktop_ray.errors import ProtocolError
from rocktop_ray.live.messages import Audio, Bypass, Change, ChangeVoice, End, Ping, Pong, Problem, Resume, Start
from rocktop_ray.live.protocol import parse_client
from serve_apps.live.session.changes import Changes, Chosen
from serve_apps.live.session.clock import Budget, LiveClock
from serve_apps.live.session.course import Course
from serve_apps.live.session.limits import LiveLimits
from serve_apps.live.session.line import Line
from serve_apps.live.session.tape import Block, How
from serve_apps.live.session.wire import TooMuchError, Wire


class Listener:
    """Puts blocks into the course.

    Args:
        level: seconds by which the client is ahead of time; below 0 for what it missed as a connection was lost.
        catch_up: seconds of audio that have no deadlines, for the same reason.
        explain: an error as the client may see it.
        wake: called when there may be pieces to be fed.
    """

    def __init__(
        self,
        course: Course,
        changes: Changes,
        line: Line,
        limits: LiveLimits,
        level: float,
        catch_up: float,
        explain: Callable[[BaseException], Problem],
        wake: Callable[[], None],
    ) -> None:
        self._course, self._changes, self._line, self._limits = course, changes, line, limits
        self._explain, self._wake = explain, wake
        head = course.head
        now = time.monotonic()
        self._clock = LiveClock(head.rate, limits.slack, limits.ahead + line.window, level=level, now=now)
        self._hurry_from = course.tape.position + round(catch_up * head.rate) if catch_up else 0
        self._texts, self._blocks = Budget(*limits.texts), Budget(
            *limits.block_budget(head.rate / head.block, catch_up)
        )
        per_second, at_once = limits.voices
        self._voices = Budget(per_second, at_once + catch_up * per_second)
        self._warned = float("-inf")
        self.heard = now
        """When the client last said something."""

    async def run(self, wire: Wire) -> None:
        """Listen for ever. Raises GoneError, ProtocolError, TooMuchError, and what ``Changes.uneven`` raises."""
        head = self._course.head
        self._changes.begin(self._course, self._changed)
        while True:
            await self._line.room.wait()
            message = parse_client(await wire.receive(), head.format, head.rate)
            self.heard = time.monotonic()
            if not isinstance(message, Audio) or head.live:
                budget = self._blocks if isinstance(message, Audio) else self._texts
                if not budget.take(self.heard):
                    raise TooMuchError("too many messages in too short a time")
            if self._course.ending and not isinstance(message, Ping):
                raise ProtocolError("nothing but pings may follow the end")
            if isinstance(message, Audio):
                await self._block(message)
            elif isinstance(message, Ping):
                self._line.post(Pong(message.at))
            elif isinstance(message, End):
                self._course.finish(self.heard)
                self._wake()
                self._line.news.set()
            elif isinstance(message, Start | Resume):
                raise ProtocolError("the session has begun already")
            else:
                self._change(message)
            await asyncio.sleep(0)  # a client that sends without pause must not keep the others from their turn

    async def _block(self, audio: Audio) -> None:
        course, now, length = self._course, self.heard, len(audio.samples)
        if audio.seq < course.tape.seq:
            return  # sent again after a resume: it is here already
        if audio.seq > course.tape.seq or audio.position != course.tape.position:
            raise ProtocolError(
                f"the next block is number {course.tape.seq} at position {course.tape.position}, not {audio.seq} at "
                f"{audio.position}: blocks follow each other without gaps"
            )
        if course.tape.seq == 0 and length % course.tape.grid:
            await self._changes.uneven()
            self._line.applied()
        due, ahead = math.inf, 0.0
        if course.head.live:
            ahead = self._clock.ahead(now, length)
            course.began = time.time() - (audio.position + length) / course.head.rate + self._clock.level
            if audio.position >= self._hurry_from:
                held = course.tape.held(audio.position + length)
                due = self._clock.due(now, length, held, self._changes.chosen.facts.hop)
        known = audio.seq <= self._line.received
        course.add(Block(audio.seq, audio.position, audio.samples, course.how, now, due, known))
        self._wake()
        self._line.news.set()
        self._line.look()
        if course.head.live:
            self._bound(ahead, now)

    def _bound(self, ahead: float, now: float) -> None:
        """A client that is bound to real time may not pile up blocks here."""
        course, window = self._course, self._line.window
        most = window + course.head.block / course.head.rate
        if course.waiting > most or len(course.answers.blocks) > self._limits.most_waiting:
            raise TooMuchError(f"more than {window:g} s of audio wait for their answers: wait for them, too")
        if ahead > window:
            raise TooMuchError("this stream runs ahead of real time: send as time passes, or start with pace 'free'")
        if ahead > 0 and now - self._warned > 1:
            self._warned = now
            self._line.notice("too-fast", "this stream runs ahead of real time, and will be cut", round(ahead, 3))

    def _change(self, message: Change | ChangeVoice | Bypass) -> None:
        course = self._course
        if isinstance(message, Bypass):
            course.how = How(course.how.voice, course.how.settings, message.on)
            self._line.applied()
        elif isinstance(message, ChangeVoice) and not self._voices.take(self.heard):
            self._line.notice("refused", "too many voices in too short a time: choose more slowly")
        else:
            self._changes.ask(message)

    def _changed(self, chosen: Chosen | Exception) -> None:
        """A change was made ready, or refused."""
        course = self._course
        if isinstance(chosen, Exception):
            self._line.notice("refused", self._explain(chosen).detail)
        elif not course.ending:
            course.asked, course.delay = chosen.asked, chosen.facts.delay
            course.how = How(chosen.voice, chosen.settings, course.how.bypass)
            self._line.applied()
