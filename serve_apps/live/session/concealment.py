"""From the converted to the take and back without a click, also where the converted ends before one knew that it would.

What would have come is guessed by linear prediction (autocorrelation method, Levinson's equations) from the last 30 ms
and fades out over 5 ms while the take fades in. Where the converted was the take itself, as while it is bypassed, there
is nothing to guess.
"""

from __future__ import annotations

import numpy as np
from scipy import linalg

from rocktop_ray.protocols import Array

FADE_SECONDS = 0.005
_HEARD_SECONDS = 0.03
_SAME = 0.02
"""Of the peak: by so much the take may differ from itself, as it was resampled twice."""
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
        self._same, self._off = 0, 0.0
        """Samples for which the converted has been the take, and by how much the last differed."""

    def converted(self, wave: Array, take: Array) -> Array:
        """The next samples where the converted is at hand; ``take`` is what sounds at the same time."""
        self._hear(wave)
        self._compare(wave, take)
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
        if self._same >= self._fade:
            guessed = (take[:near] + self._off).astype(np.float32)
        else:
            guessed = predict(self.heard, near, self._order)
        self._hear(guessed)
        return np.concatenate([self._mixed(guessed, take[:near], shares), take[near:]])

    def _mixed(self, wave: Array, take: Array, shares: np.ndarray) -> Array:
        self.share = float(shares[-1])
        smooth = shares * shares * (3 - 2 * shares)
        return (take + (wave - take) * smooth).astype(np.float32)

    def _compare(self, wave: Array, take: Array) -> None:
        differ = np.abs(wave - take) > _SAME * float(np.abs(self.heard).max(initial=0))
        run = int(np.argmax(differ[::-1])) if differ.any() else self._same + len(wave)
        self._same = min(run, self._fade)
        self._off = float(wave[-1] - take[-1]) if len(wave) else self._off

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
    if lags[0] <= 0:  # a lone sample where the window is 0: nothing is known of what it belongs to
        return np.zeros(samples, np.float32)
    lags[0] *= 1 + 1e-6
    weights = linalg.solve_toeplitz(lags[:-1], lags[1:])[::-1]
    # Not scipy.signal: to import it takes a gateway as long as all else of its own.
    coming = np.concatenate([known[-order:], np.zeros(samples)])
    for place in range(samples):
        coming[order + place] = weights @ coming[place : order + place]
    return np.clip(coming[order:], -peak, peak).astype(np.float32)
