"""The high-pass of ``audio/highpass.py``, forwards only, for hops that come one after the other.

A linear filter is matrices: what 64 samples become depends on them and on what it remembers, so a hop takes a few
products in place of a loop over samples (block filtering; Burrus, "Block realization of digital filters", 1972).
scipy has the loop, but to import ``scipy.signal`` takes a second of a core beside those who are singing.
"""

from __future__ import annotations

from math import cos, pi, tan

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
_ORDER = 5
_BLOCK = 64


class StreamHighpass:
    """Butterworth of order 5 in float64. What it remembers of a stream: ``[3, 2]``, two numbers for each section.

    Args:
        cutoff: Hz.
        rate: of the samples, Hz.
    """

    def __init__(self, cutoff: float, rate: float) -> None:
        self.sections = butterworth_highpass(cutoff, rate)
        """``[sections, 6]``: b0, b1, b2, a0 = 1, a1, a2 of each."""
        self._blocks: dict[int, _Block] = {}

    def begin(self) -> Floats:
        """After silence."""
        return np.zeros((len(self.sections), 2))

    def step(self, held: Floats, samples: npt.NDArray[np.floating]) -> tuple[Floats, Floats]:
        """``[streams, sections, 2]``, ``[streams, samples]`` -> the same after it, and ``[streams, samples]``."""
        streams, length = samples.shape
        whole = length // _BLOCK * _BLOCK
        state, wave = held.reshape(streams, -1), samples.astype(np.float64)
        parts = []
        if whole:
            state, done = self._block(_BLOCK).run(state, wave[:, :whole])
            parts.append(done)
        if whole < length:
            state, done = self._block(length - whole).run(state, wave[:, whole:])
            parts.append(done)
        return state.reshape(held.shape), np.concatenate(parts, 1) if len(parts) > 1 else parts[0]

    def _block(self, length: int) -> _Block:
        if length not in self._blocks:
            self._blocks[length] = _Block(self.sections, length)
        return self._blocks[length]


class _Block:
    """Sections in a row over ``length`` samples, as matrices."""

    def __init__(self, sections: Floats, length: int) -> None:
        memory = 2 * len(sections)
        # What each number that is remembered, and a click at the beginning, become if nothing follows.
        state, coming = np.eye(memory + 1, memory), np.zeros(memory + 1)
        coming[-1] = 1.0
        heard, states = np.empty((length, memory + 1)), np.empty((length, memory + 1, memory))
        for at in range(length):
            for place, (b0, b1, b2, _, a1, a2) in enumerate(sections):
                first, second = state[:, 2 * place].copy(), state[:, 2 * place + 1].copy()
                out = b0 * coming + first
                state[:, 2 * place] = b1 * coming - a1 * out + second
                state[:, 2 * place + 1] = b2 * coming - a2 * out
                coming = out
            heard[at], states[at] = coming, state
            coming = np.zeros(memory + 1)
        self._length = length
        self._kept = states[-1, :memory]
        """``[memory, memory]``: what becomes of what was remembered."""
        self._left = states[::-1, memory].copy()
        """``[length, memory]``: what each sample leaves behind."""
        self._rings = heard[:, :memory].T.copy()
        """``[memory, length]``: how what was remembered is heard."""
        late = np.arange(length)[None, :] - np.arange(length)[:, None]
        self._answer = np.where(late >= 0, heard[np.maximum(late, 0), memory], 0.0)
        """``[length, length]``: how each sample is heard."""

    def run(self, state: Floats, wave: Floats) -> tuple[Floats, Floats]:
        """``[streams, memory]``, ``[streams, samples]``, a multiple of ``length`` -> the same after it."""
        rows = wave.reshape(-1, self._length)
        left = (rows @ self._left).reshape(len(wave), -1, state.shape[1])
        before = np.empty_like(left)
        for at in range(left.shape[1]):
            before[:, at] = state
            state = state @ self._kept + left[:, at]
        heard = rows @ self._answer + before.reshape(len(rows), -1) @ self._rings
        return state, heard.reshape(wave.shape)


def butterworth_highpass(cutoff: float, rate: float) -> Floats:
    """Of order 5, by the bilinear transform -> ``[3, 6]``: a section of first order and two of second."""
    warped = tan(pi * cutoff / rate)
    below = 1 + warped
    sections = [[1 / below, -1 / below, 0.0, 1.0, (warped - 1) / below, 0.0]]
    for number in (1, 2):
        damping = 2 * cos(pi * number / _ORDER) * warped
        below = 1 + damping + warped**2
        sections.append(
            [1 / below, -2 / below, 1 / below, 1.0, 2 * (warped**2 - 1) / below, (1 - damping + warped**2) / below]
        )
    return np.array(sections)
