"""What came in: blocks as the client cut them, and pieces as the engine takes them.

Pieces are multiples of the session's grid, so a block that ends between two points of the grid is converted to its end
when the next one has come. Both are kept from the last save on: a lost replica, or a lost gateway, needs them again.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass

import numpy as np

from rocktop_ray.protocols import Array
from rocktop_ray.settings import ConvertSettings
from serve_apps.orders import VoiceRef


@dataclass(frozen=True)
class How:
    """How a block is to be converted."""

    voice: VoiceRef
    settings: ConvertSettings
    bypass: bool = False


@dataclass(frozen=True)
class Block:
    """A block of input. Positions are in the client's samples."""

    seq: int
    position: int
    samples: Array
    how: How
    arrived: float = 0.0
    due: float = math.inf
    """When it is answered whatever there is; infinite where there is no hurry."""
    known: bool = False
    """The client has its answer already: it was made on a connection that is lost."""
    last: bool = False
    """Silence of the flush, not of the client."""

    @property
    def end(self) -> int:
        """Position after it."""
        return self.position + len(self.samples)

    @property
    def hurry(self) -> bool:
        """Whether it has a deadline."""
        return self.due < math.inf


@dataclass(frozen=True)
class Cut:
    """A piece of a stream."""

    index: int
    position: int
    samples: Array
    how: How
    arrived: float
    hurry: bool
    """Whether anybody waits for it."""

    @property
    def end(self) -> int:
        """Position after it."""
        return self.position + len(self.samples)


class Tape:
    """Blocks in, pieces out.

    Args:
        grid: samples that pieces are multiples of.
        seq, position: of the block that is wanted next.
        index, fed: of the next piece; ``fed`` may be behind ``position`` where a block begins that was fed in part.
    """

    def __init__(self, grid: int, *, seq: int = 0, position: int = 0, index: int = 0, fed: int = 0) -> None:
        self.grid, self.seq, self.position = grid, seq, position
        self.blocks: deque[Block] = deque()
        """Those of which not all is behind the last save, and the ones after."""
        self.cuts: deque[Cut] = deque()
        """Since the last save."""
        self._index, self._cut, self._rest = index, fed, np.zeros(0, np.float32)

    @property
    def index(self) -> int:
        """Of the piece that comes next."""
        return self._index

    def held(self, end: int) -> int:
        """Samples that must come after position ``end`` until the piece there is whole."""
        return -end % self.grid

    def add(self, block: Block) -> None:
        """The next block, of sequence number ``seq`` at ``position``."""
        self.blocks.append(block)
        self.seq, self.position = block.seq + 1, block.end
        fresh = block.samples[max(0, self._cut + len(self._rest) - block.position) :]
        self._rest = np.concatenate([self._rest, fresh])
        whole = len(self._rest) // self.grid * self.grid
        if whole:
            self.cuts.append(Cut(self._index, self._cut, self._rest[:whole], block.how, block.arrived, block.hurry))
            self._index, self._cut, self._rest = self._index + 1, self._cut + whole, self._rest[whole:]

    def finish(self, how: How, delay: int, usual: int, now: float) -> list[Block]:
        """Silence of ``delay`` samples behind the last block, in blocks of the usual length; the last may be shorter.
        What the grid needs besides goes to the engine only.
        """
        flush = []
        for start in range(0, delay, usual):
            silence = np.zeros(min(usual, delay - start), np.float32)
            flush.append(Block(self.seq, self.position, silence, how, now, last=True))
            self.add(flush[-1])
        if len(self._rest):
            rest = np.concatenate([self._rest, np.zeros(self.held(self._cut + len(self._rest)), np.float32)])
            self.cuts.append(Cut(self._index, self._cut, rest, how, now, hurry=False))
            self._index, self._cut, self._rest = self._index + 1, self._cut + len(rest), rest[:0]
        return flush

    def saved(self, index: int, position: int) -> None:
        """All pieces before ``index``, up to ``position``, are in a save."""
        while self.cuts and self.cuts[0].index < index:
            self.cuts.popleft()
        while self.blocks and self.blocks[0].end <= position:
            self.blocks.popleft()
