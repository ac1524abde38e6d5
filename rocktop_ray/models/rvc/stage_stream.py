"""One stage of the HiFi-GAN decoder as a stream: an upsampling, its source, and its residual blocks."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from itertools import accumulate

import torch
import torch.nn.functional as F
from torch import Tensor

from rocktop_ray.models.rvc.few_rows import for_few_rows
from rocktop_ray.models.rvc.hifigan import SLOPE
from rocktop_ray.models.rvc.short_conv import RowConv, Workspace
from rocktop_ray.models.rvc.tiled import Stage, silence


@dataclass(frozen=True)
class StageState:
    """What one upsampling stage remembers."""

    inputs: Tensor
    """The last rows before the upsampling, rectified."""
    rows: Tensor
    """The last rows before each residual convolution, one convolution after the other: ``[rows, channels]``."""


class StageStream:
    """One upsampling with its source and residual blocks; ``lag`` rows behind the frames once upsampled."""

    def __init__(self, stage: Stage, lag: int, rate: int, spare: deque[Workspace]) -> None:
        self._stage, self._lag, self._rate, self._spare = stage, lag, rate, spare
        blocks = [[[for_few_rows(conv, rate) for conv in step] for step in block] for block in stage.blocks]
        self._blocks = [_chain(block, stage.reach) for block in blocks]
        self._back = max(chain.back for chain in self._blocks)
        """Rows before the new ones that the blocks' first convolutions need. They share them."""
        self._kept = sum(chain.kept for chain in self._blocks)
        ends = list(accumulate(chain.kept for chain in self._blocks))
        self._parts = [slice(end - chain.kept, end) for chain, end in zip(self._blocks, ends, strict=True)]
        self.heard = 0 if stage.noise is None else lag * stage.stride + stage.noise_padding
        """Samples of the source before a block that its rows still need."""

    def begin(self) -> StageState:
        """Nothing but the 0 before the first frame."""
        stage = self._stage
        return StageState(
            torch.zeros(stage.reads - 1, stage.runs.shape[1]), torch.zeros(self._kept + self._back, stage.width)
        )

    def step(self, state: StageState, x: Tensor, frames: int, source: Tensor, total: int) -> tuple[StageState, Tensor]:
        """Rows ``[n, wide]`` after ``frames`` frames -> rows ``[n * rate, width]``, later by the blocks' reach."""
        stage, count, back = self._stage, len(x), self._back
        rows = count * stage.rate
        low, end = frames * self._rate - self._lag, total * self._rate
        joined = torch.cat([state.inputs, F.leaky_relu_(x, SLOPE)])
        signal = torch.empty(back + rows + stage.slack, stage.width)
        signal[:back] = state.rows[self._kept :]
        self._upsampled(signal[back : back + rows], joined, source)
        silence(signal[back : back + rows], low, end)
        signal[back + rows :].zero_()
        kept = torch.empty_like(state.rows)
        kept[self._kept :] = signal[rows : rows + back]
        first, *others = (
            self._residual(chain, signal[back - chain.back :], rows, low, end, state.rows[part], kept[part])
            for chain, part in zip(self._blocks, self._parts, strict=True)
        )
        for other in others:
            first.add_(other)
        return StageState(joined[count:].clone(), kept), silence(first, low - stage.reach, end)

    def _upsampled(self, rows: Tensor, inputs: Tensor, source: Tensor) -> None:
        """Set ``rows`` to what the inputs make, with their part of the source."""
        stage = self._stage
        last = stage.reads - 1
        count = len(inputs) - last
        made = rows.view(count, -1)
        torch.addmm(stage.bias, inputs[last:], stage.runs[0], out=made)
        for run in range(1, stage.reads):
            made.addmm_(inputs[last - run : last - run + count], stage.runs[run])
        if stage.noise is not None:
            taps = len(stage.noise)
            heard = source[len(source) - len(rows) * stage.stride - self.heard :]
            heard = heard[: (len(rows) - 1) * stage.stride + taps]
            rows.addmm_(heard.unfold(0, taps, stage.stride), stage.noise)

    def _residual(
        self, chain: _Chain, current: Tensor, rows: int, low: int, end: int, held: Tensor, kept: Tensor
    ) -> Tensor:
        """One block: ``current`` and the rows ``held`` of its other convolutions -> ``rows`` rows, and what is kept."""
        try:
            work = self._spare.pop()
        except IndexError:
            work = Workspace()
        low -= chain.waits
        place = 0
        entering = current
        for turn, link in enumerate(chain.links):
            if link.opens:
                entering = current
            back = link.next_back
            shape = back + rows + self._stage.slack, self._stage.width
            target = torch.empty(shape) if link is chain.links[-1] else work.get(f"rows {turn % 3}", *shape)
            low -= link.conv.reach
            link.conv(current, rows, target[back:], work, None if link.skip is None else entering[link.skip :])
            target[back + rows :].zero_()
            silence(target[back : back + rows], low, end)
            if back:
                target[:back] = held[place : place + back]
                kept[place : place + back] = target[rows : rows + back]
                place += back
            current = target
        self._spare.append(work)
        return current[:rows]


@dataclass(frozen=True)
class _Link:
    """A convolution of a residual block."""

    conv: RowConv
    opens: bool
    """Whether its input is also that of a residual connection, which begins ``skip`` rows into it where it ends."""
    skip: int | None
    next_back: int
    """Rows before the new ones that the next convolution needs."""


@dataclass(frozen=True)
class _Chain:
    """A residual block."""

    links: list[_Link]
    waits: int
    """Rows that it stays behind, so that it ends where its slowest neighbour does."""
    back: int
    """Rows of the stage's signal before the new ones that it needs."""
    kept: int
    """Rows before all its convolutions but the first."""


def _chain(block: list[list[RowConv]], slowest: int) -> _Chain:
    reaches = [conv.reach for step in block for conv in step]
    links: list[_Link] = []
    for step in block:
        skip = 2 * step[0].reach - sum(conv.reach for conv in step)
        for conv in step:
            following = reaches[len(links) + 1 :]
            back = 2 * following[0] if following else 0
            links.append(_Link(conv, conv is step[0], skip if conv is step[-1] else None, back))
    waits = slowest - sum(reaches)
    return _Chain(links, waits, waits + 2 * reaches[0], 2 * sum(reaches[1:]))
