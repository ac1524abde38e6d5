"""Between a client's sample rate, whichever it is, and 48 kHz: samples at exact rational times, no clock of its own.

``resample.StreamResampler`` makes blocks of blocks and so needs ratios of small numbers. Here every output sample is
one sinc of its own over the input around it, so it does not depend on how the stream was cut.
"""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from rocktop_ray.live.resample import sinc_weights
from rocktop_ray.protocols import Array

CROSSINGS = 48
"""Zero crossings of the sinc to each side."""
_MOST_PHASES = 1024
"""Above so many phases the weights are interpolated between this many (error below 1e-5)."""


class RateChange:
    """Output sample m stands at input time ``m * from_rate / to_rate``. Equal rates copy."""

    def __init__(self, from_rate: int, to_rate: int) -> None:
        common = math.gcd(from_rate, to_rate)
        self._step, self._phases = from_rate // common, to_rate // common
        self.half = 0 if from_rate == to_rate else math.ceil(CROSSINGS * max(1.0, from_rate / to_rate))
        """Input samples after the time of an output, rounded down, that it needs; before it, one fewer."""
        self._cutoff = min(1.0, to_rate / from_rate)

    def ready(self, known: int) -> int:
        """How many outputs (from output 0 on) can be made of inputs before ``known``; may be negative."""
        return -((self.half - known) * self._phases // self._step)

    def make(self, audio: Array, first: int, low: int, high: int) -> Array:
        """Outputs ``low .. high``; ``audio[0]`` is input ``first``, and all that they need must be there."""
        if not self.half:
            return audio[low - first : high - first]
        whole, phase = divmod(low * self._step, self._phases)
        places, weights = _plan(self._step, self._phases, self.half, self._cutoff, phase, high - low)
        heard = np.lib.stride_tricks.sliding_window_view(audio, 2 * self.half)[places + (whole - self.half + 1 - first)]
        made: Array = np.einsum("ij,ij->i", heard, weights)
        return made


@lru_cache(maxsize=8)
def _plan(
    step: int, phases: int, half: int, cutoff: float, phase: int, count: int
) -> tuple[npt.NDArray[np.int64], Array]:
    """For ``count`` outputs, the first at ``phase``: inputs from the first one's on, and weights ``[count, 2 * half]``.

    Most rates have but one plan for all hops.
    """
    table = _weights(phases, half, cutoff)
    at = phase + np.arange(count, dtype=np.int64) * step
    places = at // phases
    phase_of = at - places * phases
    if phases <= _MOST_PHASES:
        return places, table[phase_of]
    place, share = np.divmod(phase_of * (_MOST_PHASES / phases), 1)
    row = place.astype(np.int64)
    return places, table[row] + (table[row + 1] - table[row]) * share.astype(np.float32)[:, None]


@lru_cache(maxsize=32)
def _weights(phases: int, half: int, cutoff: float) -> Array:
    """``[phases, 2 * half]``, for times from 0 to below 1 (to 1, where they are interpolated)."""
    times = np.arange(_MOST_PHASES + 1) / _MOST_PHASES if phases > _MOST_PHASES else np.arange(phases) / phases
    return sinc_weights(np.arange(1 - half, half + 1)[None] - times[:, None], half, cutoff, axis=1)
