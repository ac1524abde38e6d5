"""The course of one session, without waiting for anything: blocks in, pieces to the engine and back, answers out, and
a save of it all as often as is needed.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import replace
from itertools import islice
from typing import Any

import numpy as np

from rocktop_ray.live.messages import Audio, Flags
from serve_apps.live.engine import Fed
from serve_apps.live.session.answers import Answer, Answers
from serve_apps.live.session.concealment import Joiner
from serve_apps.live.session.parking import Head, Save, Totals, shortly
from serve_apps.live.session.tape import Block, Cut, How, Tape

LIVE_SAVE, FREE_SAVE = 0.03, 0.2
"""Seconds of audio after which the engine's state is asked for: with every usual block of a few sessions, so that
another process has no more to compute than the lost one had. States are 300 KB, and a gateway of many sessions would do
little but take them in: with n sessions they come n / ``_FEW`` times less often, up to ``FREE_SAVE``.
"""
_FEW = 2.5
_MOST_PIECES = 64
_MOST_SECONDS = 1.0


def fresh_save(head: Head, how: How, asked: dict[str, Any], delay: int) -> Save:
    """The save of a session that has not begun."""
    none = np.zeros(0, np.float32)
    return Save(
        head, how, asked, time.time(), 0, 0, None, 0, 0, np.zeros(delay, np.float32), none, 1.0, none, (), Totals()
    )


class Course:
    """A session from ``save`` on. ``kept_seconds``: of answers that a save holds, as the client may not have got them.

    ``how``, ``asked`` and ``delay`` hold for the block that comes next; after a change of voice, answers are as late as
    the old one's for a while. ``fed`` counts the pieces that were given to the engine, as ``Cut.index`` does.
    """

    def __init__(self, save: Save, delay: int, kept_seconds: float) -> None:
        self.head, self.how, self.asked = save.head, save.how, dict(save.asked)
        self.save, self.fed, self.delay = save, save.index, delay
        joiner = Joiner(save.head.rate, save.share, save.heard)
        self.answers = Answers(len(save.dry), joiner, at=save.at, dry=save.dry, wet=save.wet)
        self.tape = Tape(save.head.grid, seq=save.seq, position=save.at, index=save.index, fed=save.fed)
        self.totals, self.began = save.totals, save.began
        self.wishes = save.wishes
        """Changes that the client asked for and that are not ready yet, in order."""
        self._outputs: deque[Audio] = deque(save.outputs)
        self._kept = round(kept_seconds * save.head.rate)
        self.ending, self.samples = False, 0
        """Whether no more blocks come, and then the samples that came."""
        self._asked = save.fed
        """Position of the last state that was asked for."""
        self.crowd = 1
        """Sessions of this gateway, itself included."""
        for block in save.blocks:
            self.add(block)

    @property
    def seconds(self) -> float:
        """Of input."""
        return self.tape.position / self.head.rate

    @property
    def waiting(self) -> float:
        """Seconds of blocks that are not answered."""
        return self.answers.waiting / self.head.rate

    @property
    def due(self) -> float:
        """When the next answer cannot wait any longer."""
        return self.answers.blocks[0].due if self.answers.blocks else math.inf

    @property
    def behind(self) -> bool:
        """Whether there are pieces to be fed."""
        return self.fed < self.tape.index

    @property
    def done(self) -> bool:
        """Whether all is answered, the flush too."""
        return self.ending and not self.answers.blocks

    def cut_finer(self, delay: int) -> None:
        """Take pieces of any length from the first block on. Nothing may have come yet."""
        self.head = replace(self.head, grid=1)
        self.save = fresh_save(self.head, self.how, self.asked, delay)
        self.delay, self.answers = delay, Answers(delay, Joiner(self.head.rate))
        self.tape = Tape(1)

    def add(self, block: Block) -> None:
        """The next block came."""
        self.answers.expect(block)
        self.tape.add(block)

    def finish(self, now: float) -> None:
        """No more blocks come: flush."""
        self.ending, self.samples = True, self.tape.position
        delay = max(self.delay, self.answers.delay)
        for block in self.tape.finish(self.how, delay, self.head.block, now):
            self.answers.expect(block)

    def batch(self, *, all_since: bool = False) -> list[Cut]:
        """The pieces to be fed next: of one voice, and no more than is computed in good time."""
        cuts = self.tape.cuts
        found: list[Cut] = []
        room = math.inf if all_since else _MOST_SECONDS * self.head.rate
        for cut in islice(cuts, self.fed - cuts[0].index, None):
            room -= len(cut.samples)
            if found and (room < 0 or len(found) == _MOST_PIECES or cut.how.voice != found[0].how.voice):
                break
            found.append(cut)
        return found

    def gave(self, batch: Sequence[Cut], *, save: bool) -> None:
        """The engine was given these pieces. ``save``: it was asked for the state behind them."""
        self.fed = batch[-1].index + 1
        if save:
            self._asked = batch[-1].end

    def wants_save(self, batch: Sequence[Cut]) -> bool:
        """Whether the state behind these pieces is to be kept. Not within a flush: nobody resumes there."""
        if self.ending:
            return False
        end, next_one = batch[-1].end, batch[-1].index + 1
        coming = next((cut for cut in self.tape.cuts if cut.index == next_one), None)
        if coming is not None and coming.how.voice != batch[-1].how.voice:
            return True
        often = min(FREE_SAVE, LIVE_SAVE * max(1.0, self.crowd / _FEW)) if self.head.live else FREE_SAVE
        return end - max(self._asked, self.save.fed) >= often * self.head.rate

    def before(self, batch: Sequence[Cut]) -> list[Cut] | None:
        """The pieces between the save and a batch; None if they are many, or of another voice."""
        most = batch[0].index - self.save.index
        found = list(islice(self.tape.cuts, min(most, _MOST_PIECES)))
        same = all(cut.how.voice == batch[0].how.voice for cut in found)
        return found if same and len(found) == most else None

    def took(self, batch: Sequence[Cut], fed: Fed, rested: Sequence[bool]) -> list[Answer]:
        """The engine's answer to a batch; the answers that it makes possible."""
        for cut, wave, delay, rest in zip(batch, fed.waves, fed.delays, rested, strict=True):
            self.answers.cover(cut.position, wave, delay, rested=rest)
        answers = self._count(self.answers.ready())
        if fed.state is not None and self.answers.covered == batch[-1].end:
            self._keep(batch[-1], fed.state)
        return answers

    def overdue(self, now: float, why: Flags) -> list[Answer]:
        """Answers that cannot wait any longer."""
        return self._count(self.answers.overdue(now, why))

    def rewind(self) -> None:
        """Feed all pieces since the save again."""
        self.fed, self._asked = self.save.index, self.save.fed

    def parked(self) -> Save:
        """The save with all that came since."""
        blocks = tuple(block for block in self.tape.blocks if not block.last)
        return replace(self.save, how=self.how, asked=self.asked, began=self.began, blocks=blocks, wishes=self.wishes)

    def _keep(self, last: Cut, state: bytes) -> None:
        """Everything up to the end of a piece is behind the state."""
        self.tape.saved(last.index + 1, last.end)
        first = self.tape.blocks[0] if self.tape.blocks else None
        seq, at = (first.seq, first.position) if first else (self.tape.seq, self.tape.position)
        outputs = shortly(self._outputs, seq, self._kept)
        while outputs and self._outputs[0] is not outputs[0]:
            self._outputs.popleft()
        self.save = Save(
            head=self.head,
            how=self.how,
            asked=self.asked,
            began=self.began,
            index=last.index + 1,
            fed=last.end,
            state=state,
            seq=seq,
            at=at,
            dry=self.answers.dry(at),
            wet=self.answers.wet(at, last.end),
            share=self.answers.joiner.share,
            heard=self.answers.joiner.heard,
            outputs=outputs,
            totals=self.totals,
            wishes=self.wishes,
        )

    def _count(self, answers: list[Answer]) -> list[Answer]:
        if self.ending:
            answers = [fit for answer in answers if (fit := self._fit(answer)) is not None]
        for answer in answers:
            if not answer.block.last:
                self._outputs.append(answer.audio)
            flags, totals = answer.audio.flags, self.totals
            self.totals = Totals(
                totals.answered + (not answer.block.last),
                totals.late + bool(flags & Flags.LATE),
                totals.lost + bool(flags & Flags.LOST),
                totals.bypassed + bool(flags & Flags.BYPASS),
            )
        return answers

    def _fit(self, answer: Answer) -> Answer | None:
        """Of the flush as much as the stream is late. While voices change, nobody knew that when the end came."""
        room = answer.delay - (answer.audio.position - self.samples)
        if not answer.block.last or room >= len(answer.audio.samples):
            return answer
        return replace(answer, audio=replace(answer.audio, samples=answer.audio.samples[:room])) if room > 0 else None
