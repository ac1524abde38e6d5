"""What a session says to its client: answers, and messages. Whoever has something to say says it here."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import asdict

from rocktop_ray.live.messages import Applied, Notice, TextMessage
from rocktop_ray.live.protocol import pack, pack_audio
from serve_apps.live.session.answers import Answer
from serve_apps.live.session.course import Course
from serve_apps.live.session.tally import Tally
from serve_apps.live.session.wire import Wire

_MOST_BLOCKS = 1000
"""That wait for their answer, before nothing more is read from a client in no hurry."""


class Line:
    """Methods raise SilentError if the client does not read.

    Args:
        received: number of the last answer that the client got on another connection; -1 for none.
        window: seconds of audio that may wait for their answers.
        spare: seconds of audio besides that may lie here, answers to which the client says it has.
    """

    def __init__(self, course: Course, wire: Wire, tally: Tally, received: int, window: float, spare: float) -> None:
        self._course, self._wire, self._tally = course, wire, tally
        self.received, self.window, self._spare = received, window, spare
        self._delay = course.answers.delay
        """That the client was told."""
        self.room, self.news = asyncio.Event(), asyncio.Event()
        """Set while more may be read from a client in no hurry; and when blocks came or were answered."""
        self.room.set()

    def post(self, message: TextMessage) -> None:
        """Say something."""
        self._wire.post(pack(message))

    def notice(self, code: str, message: str, seconds: float | None = None) -> None:
        """Something to know."""
        self.post(Notice(code, message, seconds))

    def applied(self) -> None:
        """A change holds from the next block on."""
        self._apply(self._course.tape.seq, self._course.answers.delay)

    def again(self) -> None:
        """Answers of another connection that the client may not have got."""
        for audio in self._course.save.outputs:
            if audio.seq > self.received:
                self._wire.post(pack_audio(audio, self._course.head.format))

    def told(self, answers: Sequence[Answer]) -> None:
        """Blocks were answered."""
        head = self._course.head
        self._tally.answered_at(time.monotonic(), answers, head.rate)
        for answer in answers:
            if answer.delay != self._delay:  # another voice has taken over
                self._apply(answer.audio.seq, answer.delay)
            if answer.audio.seq > self.received:
                self._wire.post(pack_audio(answer.audio, head.format))
        self.look()
        self.news.set()

    def look(self) -> None:
        """Whether there is room: nothing may pile up, neither before the engine nor on the way out."""
        course = self._course
        # Blocks that the client says it has answers to wait for none, but they lie here all the same.
        held = course.tape.position - course.answers.at
        full = (
            course.waiting > self.window
            or held > (self.window + self._spare) * course.head.rate
            or len(course.answers.blocks) > _MOST_BLOCKS
            or self._wire.queued > 4 * self.window * course.head.rate
        )
        if full and not course.head.live:
            self.room.clear()
        else:
            self.room.set()

    def _apply(self, seq: int, delay: int) -> None:
        self._delay, how = delay, self._course.how
        self.post(Applied(asdict(how.settings), how.voice.name, how.bypass, seq, delay))
