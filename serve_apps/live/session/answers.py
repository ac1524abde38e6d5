"""What goes out: every block answered once, in order, as long as it is, with the converted or with what there is."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

import numpy as np

from rocktop_ray.live.messages import Audio, Flags
from rocktop_ray.protocols import Array
from serve_apps.live.session.concealment import Joiner
from serve_apps.live.session.tape import Block


@dataclass(frozen=True)
class Answer:
    """A block and its answer, ``delay`` samples late."""

    block: Block
    audio: Audio
    delay: int


class Answers:
    """Blocks wait here for their sound.

    Args:
        delay: samples by which answers are older than their blocks; another one once another voice has taken over.
        joiner: where the sound left off.
        at: position up to which all is answered.
        dry: the last ``delay`` samples of the take before ``at``; silence if left out.
        wet: the converted from ``at`` on.
    """

    def __init__(
        self, delay: int, joiner: Joiner, *, at: int = 0, dry: Array | None = None, wet: Array | None = None
    ) -> None:
        self.delay, self.joiner, self.at = delay, joiner, at
        self.blocks: deque[Block] = deque()
        self.waiting = 0
        """Samples of the blocks that the client has no answer to."""
        self._wet = np.zeros(0, np.float32) if wet is None else wet
        self.covered = at + len(self._wet)
        """Position up to which the converted has come. Behind ``at`` where answers could not wait for it."""
        self._dry = np.zeros(delay, np.float32) if dry is None else dry
        self._dry_at = at - len(self._dry)
        self._rested, self._why = -1, Flags.NONE
        self._turns: deque[tuple[int, int]] = deque()
        """Positions from which on the delay is another one, and that."""

    def expect(self, block: Block) -> None:
        """A block to be answered."""
        self.blocks.append(block)
        self.waiting += 0 if block.known else len(block.samples)
        self._dry = np.concatenate([self._dry, block.samples])

    def cover(self, position: int, wave: Array, delay: int, *, rested: bool = False) -> None:
        """The converted from ``position`` on, ``delay`` samples late. What was there already, or comes too late, is
        passed over.

        rested: it is the take, as the networks were left out.
        """
        end = position + len(wave)
        if end <= self.covered:
            return
        if rested:
            self._rested = end
        if delay != (self._turns[-1][1] if self._turns else self.delay):
            self._turns.append((position, delay))
        fresh = wave[max(self.covered, self.at) - position :] if end > self.at else wave[:0]
        self._wet = np.concatenate([self._wet, fresh])
        self.covered = end

    def ready(self) -> list[Answer]:
        """Answers whose sound is there."""
        answers = []
        while self.blocks and self.blocks[0].end <= self.covered:
            answers.append(self._answer(Flags.NONE))
        return answers

    def overdue(self, now: float, why: Flags) -> list[Answer]:
        """Answers that cannot wait any longer, and those that are ready behind them. ``why``: LATE or LOST."""
        answers = []
        while self.blocks and self.blocks[0].due <= now:
            answers.append(self._answer(why if self.blocks[0].end > self.covered else Flags.NONE))
        return [*answers, *self.ready()]

    def take(self, start: int, samples: int) -> Array:
        """The take, as late as the converted is: what belongs to positions from ``start`` on."""
        begin = start - self.delay - self._dry_at
        found = self._dry[max(0, begin) : max(0, begin + samples)]
        before = min(samples, max(0, -begin))
        after = np.zeros(samples - before - len(found), np.float32)
        return np.concatenate([np.zeros(before, np.float32), found, after])

    def dry(self, at: int) -> Array:
        """The last ``delay`` samples of the take before ``at``."""
        return self.take(at, self.delay)

    def wet(self, start: int, end: int) -> Array:
        """The converted between two positions; the take where it is gone."""
        begin = max(start, self.at)
        return np.concatenate([self.take(start, begin - start), self._wet[begin - self.at : end - self.at]])[
            : end - start
        ]

    def _answer(self, why: Flags) -> Answer:
        block = self.blocks.popleft()
        length = len(block.samples)
        while self._turns and self._turns[0][0] <= block.position:
            _, delay = self._turns.popleft()
            if not block.last or delay > self.delay:  # a flush that has begun becomes no shorter
                self.delay = delay
        take = self.take(block.position, length)
        there = min(length, max(0, self.covered - self.at))
        fading = self.joiner.share < 1
        parts = [self.joiner.converted(self._wet[:there], take[:there])] if there else []
        if there < length:
            parts.append(self.joiner.missing(take[there:]))
        flags = why
        if block.how.bypass:
            flags |= Flags.BYPASS
        elif block.position < self._rested:
            flags |= Flags.LATE
        elif fading:
            flags |= self._why
        self._why = why or self._why
        if block.last:
            flags |= Flags.LAST
        self._wet = self._wet[there:]
        self.at, self.waiting = block.end, self.waiting - (0 if block.known else length)
        self._forget()
        return Answer(block, Audio(block.seq, block.position, np.concatenate(parts), flags), self.delay)

    def _forget(self) -> None:
        """Drop what of the take nobody can ask for any more; not each time, for that would copy all of it."""
        old = min(self.at, self.covered) - self.delay - self._dry_at
        if old > len(self._dry) // 2:
            self._dry, self._dry_at = self._dry[old:].copy(), self._dry_at + old
