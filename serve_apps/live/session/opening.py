"""From a client's first message to a session that runs: a new one, or one whose connection was lost."""

from __future__ import annotations

import asyncio
import math
import secrets
import time
from dataclasses import dataclass

from rocktop_ray.errors import RocktopError, SessionGoneError
from rocktop_ray.live.messages import Resume, Start
from rocktop_ray.settings import ConvertSettings
from serve_apps.ids import uuid7
from serve_apps.live.engine import Desk
from serve_apps.live.session.changes import Changes, Chosen, FindVoice, choose
from serve_apps.live.session.course import Course, fresh_save
from serve_apps.live.session.grid import grid_of
from serve_apps.live.session.parking import Head, Save, resumed, unpack_save
from serve_apps.live.session.runner import Behind, Runner
from serve_apps.live.session.seat import Seat
from serve_apps.live.session.tally import Tally
from serve_apps.live.session.tape import How
from serve_apps.live.session.wire import Wire
from serve_apps.observe.metrics import Metrics

_NETWORK = 1.0
"""Seconds that a client may have needed besides, to find that its connection was lost and to come back."""


@dataclass(frozen=True)
class Opening:
    """Opens the sessions of one connection."""

    behind: Behind
    desk: Desk
    find: FindVoice
    metrics: Metrics
    owner: str | None
    """Name of the API key."""

    async def begin(self, start: Start, wire: Wire) -> Runner:
        """A new session, admitted. Raises VoiceNotFoundError, SettingsError, BusyError, and what opening raises."""
        voice = await self.find(start.voice)
        # Without deadlines the delay is nobody's concern, and blocks of any length are answered at once.
        block = start.block if start.pace == "live" else 1
        ConvertSettings.from_mapping(start.settings)  # told before anybody asks whether there is room
        seat = Seat(self.desk, uuid7(), secrets.token_urlsafe(24))
        async with seat.reserved(voice, start.rate, start.pace == "live"):
            grid, chosen = await grid_of(self.behind.engine, voice, start.rate, block, start.settings)
            head = Head(seat.session, self.owner, start.rate, start.format, start.block, grid, start.pace)
            await seat.admit(voice, head, chosen.facts.cost)
        how = How(voice, chosen.settings, start.bypass)
        self.metrics.live_began(chosen.facts.delay / head.rate)
        return self._runner(fresh_save(head, how, dict(start.settings), chosen.facts.delay), chosen, seat, wire)

    async def resume(self, resume: Resume, wire: Wire) -> Runner:
        """A session that was parked, or that another connection still holds: that one is asked to give it up.

        Raises SessionGoneError, StreamStateError, BusyError, and what opening its voice raises; except after the first
        one it can be resumed once more.
        """
        seat = Seat(self.desk, resume.session, resume.secret)
        data = await seat.take()
        try:
            save = unpack_save(data)
            if save.head.owner != self.owner:
                raise SessionGoneError("there is no such session: it ended, or waited too long")
            save = resumed(save, resume.received, time.monotonic())
            voice, head = save.how.voice, save.head
            chosen = await choose(self.behind.engine, voice, head.rate, head.grid, save.asked)
            await seat.admit(voice, head, chosen.facts.cost)
        except (RocktopError, asyncio.CancelledError):
            await seat.leave(keep=math.inf)
            raise
        return self._runner(save, chosen, seat, wire, received=resume.received, again=True)

    def _runner(
        self, save: Save, chosen: Chosen, seat: Seat, wire: Wire, *, received: int = -1, again: bool = False
    ) -> Runner:
        window = self.behind.limits.window_of(save.head.live, save.head.block / save.head.rate)
        course = Course(save, chosen.facts.delay, window + 0.5)
        changes = Changes(self.behind.engine, self.find, seat, chosen)
        tally = Tally(self.metrics)
        level = catch_up = 0.0
        if again:
            # Only the time that has passed since it began tells what may come: resuming gives nothing by itself.
            level = max(course.seconds - (time.time() - save.began), -self.behind.limits.resume)
            catch_up = max(0.0, -level) + _NETWORK
        return Runner(
            self.behind, course, changes, seat, wire, tally, received=received, level=level, catch_up=catch_up
        )
