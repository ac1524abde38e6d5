"""One voice in a client's stream: its samples to hops at 48 kHz, what the hops became back to its samples.

Hops lie on a fixed grid, and what is resampled for a hop does not depend on how the stream was cut into blocks, so
neither does what comes out.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from rocktop_ray.errors import StreamStateError
from rocktop_ray.live.converter import LiveConverter, LiveState
from rocktop_ray.live.rates import RateChange
from rocktop_ray.protocols import TAKE_RATE, Array
from rocktop_ray.settings import ConvertSettings


@dataclass(frozen=True)
class LaneState:
    """A lane between two blocks. The sizes of its parts never change."""

    stream: LiveState
    samples: int
    """Client's samples taken in so far."""
    inputs: Array
    """The last of them, as far as hops to come may need them."""
    made: Array
    """The last of the converted at 48 kHz that outputs to come still need."""
    ready: Array
    """Outputs that wait to go out, then 0."""


class Lane:
    """The grid of a voice at a client's rate: ``rate`` in Hz, blocks of multiples of ``multiple`` samples."""

    def __init__(self, converter: LiveConverter, rate: int, multiple: int) -> None:
        self.converter = converter
        self.into, self.out = RateChange(rate, TAKE_RATE), RateChange(TAKE_RATE, rate)
        hop = converter.hop
        # Resampling in lags by whole client's samples, so that blocks that fill a hop exactly need not wait for more. A
        # hop is full as soon as its last sample can be resampled; the latest that an output may then ask for is that
        # of the block that ended just before. All ends of blocks, modulo the hop, lie on a lattice.
        self.lag = self.into.half
        """Client's samples by which resampling in lags."""
        lattice = math.gcd(multiple * TAKE_RATE, rate * hop)
        waits = rate * hop - -rate % lattice - rate
        late = waits + (self.lag - 1) * TAKE_RATE + (converter.delay + self.out.half) * rate
        self.delay = late // TAKE_RATE + 1
        """Client's samples by which outputs are later than inputs."""
        hop_samples = -(-hop * rate // TAKE_RATE)
        self._inputs, self._made = hop_samples + 2 * self.into.half + 2, 2 * self.out.half + 2
        self._most_ready = self.ready(0) + -(-rate // TAKE_RATE) + 2

    def hops(self, samples: int) -> int:
        """Whole hops in so many samples."""
        return max(0, self.into.ready(samples + self.lag)) // self.converter.hop

    def ready(self, hops: int) -> int:
        """Outputs that can be made of so many hops."""
        return self.delay - self.lag + self.out.ready(hops * self.converter.hop - self.converter.delay)

    def begin(self) -> LaneState:
        """Nothing heard yet; what comes out first is silence."""
        zeros = [np.zeros(size, np.float32) for size in (self._inputs, self._made, self._most_ready)]
        return LaneState(self.converter.begin(), 0, *zeros)

    def check(self, state: LaneState) -> None:
        """Raise StreamStateError if the state's numbers cannot be those of this lane."""
        if state.samples < 0 or state.stream.frames != self.hops(state.samples) * self.converter.layout.hop:
            raise StreamStateError("the state of the stream holds numbers that do not go together")

    def beside(self, other: Lane, state: LaneState) -> tuple[LaneState, int]:
        """The state to begin at, for a voice that joins a stream under way: silent so far, but it knows the take.

        And how many frames of 10 ms it must convert before it is worth hearing.
        """
        inputs = np.concatenate([np.zeros(self._inputs, np.float32), state.inputs])[-self._inputs :]
        frames = self.hops(state.samples) * self.converter.layout.hop
        stream, warming = self.converter.begin_beside(other.converter, state.stream, frames)
        return replace(self.begin(), stream=stream, samples=state.samples, inputs=inputs), warming


class LaneRun:
    """A lane while it takes one block: hops are asked for and given back until none is due."""

    def __init__(self, lane: Lane, state: LaneState, block: Array, settings: ConvertSettings) -> None:
        self.settings = settings
        """How the block is to be converted."""
        self._lane, self._state, self._block = lane, state, len(block)
        self._audio = np.concatenate([state.inputs, block])
        self._first = state.samples - len(state.inputs) + lane.lag
        self._hop, self._end = lane.hops(state.samples), lane.hops(state.samples + len(block))
        self._made = state.made
        self._ready = [state.ready[: lane.ready(self._hop) - state.samples]]
        self.converter = lane.converter
        self.stream = state.stream
        """The converter's state before the next hop."""

    def due(self) -> Array | None:
        """The next hop to convert ``[hop]`` at 48 kHz, None if there is none left."""
        if self._hop == self._end:
            return None
        size = self._lane.converter.hop
        return self._lane.into.make(self._audio, self._first, self._hop * size, (self._hop + 1) * size)

    def give(self, stream: LiveState, wave: Array) -> None:
        """What the hop that was due became."""
        lane, size = self._lane, self._lane.converter.hop
        joined = np.concatenate([self._made, wave])
        low, high = lane.ready(self._hop), lane.ready(self._hop + 1)
        # In the time of the outputs the converted stands ``converter.delay`` earlier.
        first, shift = self._hop * size - len(self._made) - lane.converter.delay, lane.delay - lane.lag
        self._ready.append(lane.out.make(joined, first, low - shift, high - shift))
        self._made = joined[len(joined) - len(self._made) :]
        self.stream, self._hop = stream, self._hop + 1

    def done(self) -> tuple[LaneState, Array]:
        """The state after the block, and the block's length of output."""
        state = self._state
        ready = np.concatenate(self._ready)
        waiting = np.zeros(len(state.ready), np.float32)
        rest = ready[self._block :]
        waiting[: len(rest)] = rest
        inputs = self._audio[self._block :].copy()
        after = LaneState(self.stream, state.samples + self._block, inputs, self._made.copy(), waiting)
        return after, ready[: self._block]
