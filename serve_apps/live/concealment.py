"""From the converted to the take and back without a click, also where the converted ends before one knew that it would.

What would have come is guessed by linear prediction (autocorrelation method, Levinson's equations) from the last 30 ms
and fades out over 5 ms while the take fades in.
"""

from __future__ import annotations

import numpy as np
from scipy import linalg, signal

from rocktop_ray.protocols import Array

FADE_SECONDS = 0.005
_HEARD_SECONDS = 0.03
_ORDER_SECONDS, _LEAST_ORDER, _MOST_ORDER = 0.002, 32, 128


class Joiner:
    """Puts a stream together out of pieces of the converted and of the take. Both go on all the time; each call takes
    the next samples.

    Args:
        rate: Hz.
        share: of the converted in the last sample, 0..1.
        heard: the last of the converted.
    """

    def __init__(self, rate: int, share: float = 1.0, heard: Array | None = None) -> None:
        self._fade = max(1, round(rate * FADE_SECONDS))
        self._order = min(_MOST_ORDER, max(_LEAST_ORDER, round(rate * _ORDER_SECONDS)))
        self._keep = max(2 * self._order, round(rate * _HEARD_SECONDS))
        self.share = share
        self.heard = np.zeros(0, np.float32) if heard is None else heard

    def converted(self, wave: Array, take: Array) -> Array:
        """The next samples where the converted is at hand; ``take`` is what sounds at the same time."""
        self._hear(wave)
        if self.share >= 1:
            return wave
        near = min(len(wave), self._fade)
        shares = np.minimum(1, self.share + np.arange(1, near + 1) / self._fade)
        return np.concatenate([self._mixed(wave[:near], take[:near], shares), wave[near:]])

    def missing(self, take: Array) -> Array:
        """The next samples where it is not."""
        if self.share <= 0:
            return take.copy()
        near = min(len(take), self._fade)
        shares = np.maximum(0, self.share - np.arange(1, near + 1) / self._fade)
        guessed = predict(self.heard, near, self._order)
        self._hear(guessed)
        return np.concatenate([self._mixed(guessed, take[:near], shares), take[near:]])

    def _mixed(self, wave: Array, take: Array, shares: np.ndarray) -> Array:
        self.share = float(shares[-1])
        smooth = shares * shares * (3 - 2 * shares)
        return (take + (wave - take) * smooth).astype(np.float32)

    def _hear(self, wave: Array) -> None:
        self.heard = (
            np.concatenate([self.heard, wave])[-self._keep :] if len(wave) < self._keep else wave[-self._keep :]
        )


def predict(heard: Array, samples: int, order: int) -> Array:
    """How ``heard`` would go on for some samples, never louder than it was; each is told from the ``order`` before."""
    peak = float(np.abs(heard).max(initial=0))
    if len(heard) < 2 * order or peak < 1e-5:
        return np.zeros(samples, np.float32)
    known = heard.astype(np.float64)
    windowed = known * np.hanning(len(known))
    lags = np.correlate(windowed, windowed, "full")[len(known) - 1 :][: order + 1]
    lags[0] *= 1 + 1e-6
    weights = linalg.solve_toeplitz(lags[:-1], lags[1:])
    poles = np.concatenate([[1.0], -weights])
    begun = signal.lfiltic([1.0], poles, known[: -order - 1 : -1])
    coming, _ = signal.lfilter([1.0], poles, np.zeros(samples), zi=begun)
    return np.clip(coming, -peak, peak).astype(np.float32)
