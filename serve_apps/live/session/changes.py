"""Changes of a running session that have to be made ready first: settings of the voice, another voice, another grid."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass
from typing import Any

from rocktop_ray.errors import RocktopError
from rocktop_ray.live.messages import Change, ChangeVoice
from rocktop_ray.settings import ConvertSettings
from serve_apps.live.engine import LiveEngine, StreamFacts
from serve_apps.live.session.course import Course
from serve_apps.live.session.seat import Seat
from serve_apps.orders import VoiceRef

FindVoice = Callable[[str], Awaitable[VoiceRef]]
_BY_VOICE = ("speaker", "auto_key")
"""Settings that not every voice's stream can follow."""


@dataclass(frozen=True)
class Chosen:
    """A voice that is ready, and settings that it can follow."""

    voice: VoiceRef
    facts: StreamFacts
    settings: ConvertSettings
    asked: dict[str, Any]
    """Those of the settings that the client chose; the others are the voice's own."""


async def choose(engine: LiveEngine, voice: VoiceRef, rate: int, grid: int, asked: dict[str, Any]) -> Chosen:
    """Make a voice ready. Raises SettingsError, and what else ``LiveEngine.open`` raises."""
    ConvertSettings.from_mapping(asked)  # bad ones are told before a voice is loaded
    facts = await engine.open(voice, rate, grid, ConvertSettings())
    settings = merged(facts, asked)
    if settings != ConvertSettings():
        facts = await engine.open(voice, rate, grid, settings)
    return Chosen(voice, facts, settings, dict(asked))


def merged(facts: StreamFacts, asked: dict[str, Any]) -> ConvertSettings:
    """What the client chose over the voice's own. Raises SettingsError."""
    return ConvertSettings.from_mapping({**asdict(facts.settings_default), **asked})


class Changes:
    """One change is made ready at a time; a newer one takes the place of one that is not ready yet."""

    def __init__(self, engine: LiveEngine, find: FindVoice, seat: Seat, chosen: Chosen) -> None:
        self._engine, self._find, self._seat = engine, find, seat
        self.chosen = chosen
        """What holds for the next block."""
        self._voice: str | None = None
        """Name of the one that is being made ready."""
        self._task: asyncio.Task[None] | None = None

    def ask(self, course: Course, message: Change | ChangeVoice, told: Callable[[Chosen | RocktopError], None]) -> None:
        """``told`` is called with what is to hold from the next block on, at once where nothing has to be made ready,
        or with why it is refused.
        """
        asked = dict(course.asked)
        if isinstance(message, Change):
            asked |= message.settings
            try:
                settings = merged(self.chosen.facts, asked)
            except RocktopError as error:
                told(error)
                return
            if not any(name in message.settings for name in _BY_VOICE) and self._task is None:
                self.chosen = Chosen(self.chosen.voice, self.chosen.facts, settings, asked)
                told(self.chosen)
                return
        else:
            self._voice = message.voice
        if self._task is not None:
            self._task.cancel()
        self._task = asyncio.create_task(self._prepare(course, asked, told))

    async def uneven(self, course: Course) -> None:
        """The first block does not fit the usual length: the stream is cut finer, which takes a longer delay."""
        self.chosen = await choose(self._engine, course.how.voice, course.head.rate, 1, course.asked)
        course.cut_finer(self.chosen.facts.delay)

    async def close(self) -> None:
        """Give up what is not ready."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _prepare(
        self, course: Course, asked: dict[str, Any], told: Callable[[Chosen | RocktopError], None]
    ) -> None:
        head = course.head
        result: Chosen | RocktopError
        try:
            voice = await self._find(self._voice) if self._voice is not None else course.how.voice
            result = await choose(self._engine, voice, head.rate, head.grid, asked)
            if voice != course.how.voice:
                await self._seat.admit(voice, head, result.facts.cost)
            self.chosen = result
        except RocktopError as error:
            result = error
        self._voice, self._task = None, None
        with contextlib.suppress(RocktopError):  # the wire is full: whoever writes next says so
            told(result)
