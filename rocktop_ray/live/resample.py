"""Changing the sample rate of a stream, with a state that can be kept: a polyphase filter of windowed sincs.

``audio.resample`` (soxr) is better above 0.88 of the lower rate's half, but keeps its state where nobody can reach it,
and delays by whole blocks of its own choice. This one delays by a fixed number of samples.
"""

from __future__ import annotations

import math

import numpy as np

from rocktop_ray.errors import SettingsError
from rocktop_ray.protocols import Array

_CROSSINGS = 48
"""Zero crossings of the sinc to each side."""
_BETA = 10.0
"""Of the Kaiser window: what lies beyond the transition is 100 dB down."""
_CUTOFF = 0.94
"""Middle of the transition, as a share of the lower rate's half."""
_MOST_TAPS = 8192
_RUN = 32
"""Outputs that are made from one row of input."""


class StreamResampler:
    """Blocks at ``from_rate`` to blocks at ``to_rate``: for ``multiple`` samples, ``made``, later by ``delay``.

    Raises SettingsError for rates whose ratio is not one of small numbers.
    """

    def __init__(self, from_rate: int, to_rate: int) -> None:
        common = math.gcd(from_rate, to_rate)
        self.multiple, self.made = from_rate // common, to_rate // common
        widest = max(1.0, from_rate / to_rate)
        half = math.ceil(_CROSSINGS * widest) if from_rate != to_rate else 0
        self._taps = 2 * half + self.multiple
        if self._taps * self.made > _MOST_TAPS * 16:
            raise SettingsError(f"a stream cannot be resampled from {from_rate} Hz to {to_rate} Hz")
        self.delay = half
        """Samples at ``from_rate`` by which the output lags."""
        at = np.arange(self._taps)[:, None] - half - np.arange(self.made)[None] * self.multiple / self.made
        weights = sinc_weights(at, half, 1 / widest, axis=0)
        # Outputs of several steps from one row of input: a row each would copy a hop from 48 to 16 kHz 97 times over.
        self._run = max(1, _RUN // self.made)
        self._rows = self._taps + (self._run - 1) * self.multiple
        self._weights = np.zeros((self._rows, self._run * self.made), np.float32)
        for step in range(self._run):
            low, out = step * self.multiple, step * self.made
            self._weights[low : low + self._taps, out : out + self.made] = weights

    def begin(self) -> Array:
        """The state before the first sample: what the next block's outputs still hear of earlier blocks."""
        return np.zeros(self._taps - self.multiple, np.float32)

    def step(self, state: Array, block: Array) -> tuple[Array, Array]:
        """``[.., n * multiple]`` -> ``[.., n * made]``, which begins ``delay`` samples (at ``from_rate``) earlier."""
        steps = block.shape[-1] // self.multiple
        spare = np.zeros((*block.shape[:-1], -steps % self._run * self.multiple), np.float32)
        joined = np.concatenate([state, block, spare], axis=-1)
        view = np.lib.stride_tricks.sliding_window_view(joined, self._rows, axis=-1)
        heard = np.ascontiguousarray(view[..., :: self._run * self.multiple, :])  # an overlapping view would be slow
        out = (heard @ self._weights).reshape(*block.shape[:-1], -1)[..., : steps * self.made]
        return joined[..., block.shape[-1] : joined.shape[-1] - spare.shape[-1]].copy(), out


def sinc_weights(at: np.ndarray, half: int, share: float, *, axis: int) -> Array:
    """Weights of a low-pass at distances ``at`` in samples, 0 beyond ``half``; along ``axis`` they add up to 1.

    ``share`` is the lower rate's half as a share of the input's. ``half`` 0 picks the sample at distance 0.
    """
    inside = np.clip(1 - (at / max(half, 1)) ** 2, 0, None)
    window = np.i0(_BETA * np.sqrt(inside)) / np.i0(_BETA) * (np.abs(at) <= half)
    weights = np.sinc(_CUTOFF * share * at) * window if half else (at == 0).astype(float)
    return np.asarray(weights / weights.sum(axis, keepdims=True), np.float32)
