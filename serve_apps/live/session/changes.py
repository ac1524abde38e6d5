"""Changes of a running session that have to be made ready first: settings of the voice, another voice, another grid."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from rocktop_ray.errors import BusyError, RocktopError
from rocktop_ray.live.messages import Change, ChangeVoice
from rocktop_ray.settings import ConvertSettings
from serve_apps.live.engine import LiveEngine, StreamFacts
from serve_apps.live.session.course import Course
from serve_apps.live.session.parking import Wish
from serve_apps.live.session.seat import Seat
from serve_apps.orders import VoiceRef

FindVoice = Callable[[str], Awaitable[VoiceRef]]
_BY_VOICE = ("speaker", "auto_key")
"""Settings that not every voice's stream can follow."""
_MOST = 1000
"""Changes that may wait."""
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Chosen:
    """A voice that is ready, and settings that it can follow."""

    voice: VoiceRef
    facts: StreamFacts
    settings: ConvertSettings
    asked: dict[str, Any]
    """Those of the settings that the client chose; the others are the voice's own."""


Told = Callable[[Chosen | Exception], None]


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
    """Changes that are not ready yet wait in ``Course.wishes``, in order, and are made ready together; where that
    cannot be, one after the other. Each is answered.

    Args:
        chosen: what holds at the beginning, as the desk has let it in.
    """

    def __init__(self, engine: LiveEngine, find: FindVoice, seat: Seat, chosen: Chosen) -> None:
        self._engine, self._find, self._seat = engine, find, seat
        self.chosen = chosen
        """What holds for the next block."""
        self._counted: tuple[VoiceRef, bool] | None = _counts(chosen)
        """What the desk reckons with; None where nobody knows whether it has heard the last."""
        self._admitting = False
        self._task: asyncio.Task[None] | None = None

    def begin(self, course: Course, told: Told) -> None:
        """Take up what another connection has left. ``told`` is called once for each change: with what is to hold from
        the next block on, or with why it is refused.
        """
        self._course, self._told = course, told
        self._make_ready()

    def ask(self, message: Change | ChangeVoice) -> None:
        """A change. It is told at once where nothing has to be made ready, or the settings cannot be."""
        course = self._course
        if isinstance(message, Change):
            try:
                chosen = self._with([*course.wishes, message])
            except RocktopError as error:
                self._told(error)
                return
            if not course.wishes and not self._takes_time([message], chosen):
                self.chosen = chosen
                self._told(chosen)
                return
        if len(course.wishes) == _MOST:
            self._told(BusyError("too many changes wait for one that is not ready yet"))
            return
        course.wishes = (*course.wishes, message)
        if isinstance(message, ChangeVoice) and self._task is not None and not self._admitting:
            self._task.cancel()  # nobody waits for the voice before; but what the desk is told it hears to the end
            self._task = None
        self._make_ready()

    async def uneven(self) -> None:
        """The first block does not fit the usual length: the stream is cut finer, which takes a longer delay."""
        await self.close()  # what was made ready so far was for the other grid
        course = self._course
        self.chosen = await choose(self._engine, course.how.voice, course.head.rate, 1, course.asked)
        course.cut_finer(self.chosen.facts.delay)
        self._make_ready()

    async def close(self) -> None:
        """Make nothing ready any more; what waits stays in the course."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    def _make_ready(self) -> None:
        if self._course.wishes and (self._task is None or self._task.done()):
            self._task = asyncio.create_task(self._work())

    async def _work(self) -> None:
        course, together = self._course, True
        while course.wishes:
            wishes = course.wishes if together else course.wishes[:1]
            result: Chosen | Exception
            try:
                result = self.chosen = await self._ready(wishes)
            except Exception as error:  # noqa: BLE001 - whatever it is, the client waits for an answer
                if together and len(course.wishes) > 1:
                    together = len(course.wishes) > len(wishes)  # what came meanwhile may mend it
                    continue
                if not isinstance(error, RocktopError):
                    _log.error("live change failed", exc_info=error, extra={"session": course.head.session})
                result = error
            course.wishes = course.wishes[len(wishes) :]
            for _ in wishes:
                with contextlib.suppress(RocktopError):  # the wire is full: whoever writes next says so
                    self._told(result)
            with contextlib.suppress(RocktopError):  # the desk may have let in a voice that was given up since
                await self._admit(self.chosen)

    async def _ready(self, wishes: Sequence[Wish]) -> Chosen:
        """What is to hold with these changes, made ready and let in."""
        course, head = self._course, self._course.head
        chosen = self._with(wishes)
        if self._takes_time(wishes, chosen):
            names = [wish.voice for wish in wishes if isinstance(wish, ChangeVoice)]
            voice = await self._find(names[-1]) if names else course.how.voice
            chosen = await choose(self._engine, voice, head.rate, head.grid, chosen.asked)
        await self._admit(chosen)
        return chosen

    async def _admit(self, chosen: Chosen) -> None:
        """Tell the desk what it has to reckon with. Raises BusyError, and it reckons with what was before."""
        before, wanted = self._counted, _counts(chosen)
        if wanted == before:
            return
        self._counted, self._admitting = None, True
        try:
            await self._seat.admit(chosen.voice, self._course.head, chosen.facts.cost)
            self._counted = wanted
        except BusyError:
            self._counted = before
            if before != (chosen.voice, True):  # to need less is nothing to be refused
                raise
        finally:
            self._admitting = False

    def _with(self, wishes: Sequence[Wish]) -> Chosen:
        """The present voice with other settings. Raises SettingsError."""
        asked = dict(self._course.asked)
        for wish in wishes:
            asked |= wish.settings if isinstance(wish, Change) else {}
        return replace(self.chosen, settings=merged(self.chosen.facts, asked), asked=asked)

    def _takes_time(self, wishes: Sequence[Wish], chosen: Chosen) -> bool:
        """Whether the engine or the desk has to be asked for the present voice to become ``chosen``."""
        return _counts(chosen) != _counts(self.chosen) or any(
            isinstance(wish, ChangeVoice) or any(name in wish.settings for name in _BY_VOICE) for wish in wishes
        )


def _counts(chosen: Chosen) -> tuple[VoiceRef, bool]:
    """What a session's cost depends on: its voice, and whether formants are moved."""
    return chosen.voice, chosen.settings.formant != 0
