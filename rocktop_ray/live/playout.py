"""Between a stream and a device that plays it: a small buffer that is kept at a stated length, though clocks differ.

Two sound cards, or a card and a server, never agree on what a second is; 100 parts in a million are usual, and after an
hour the buffer would be empty or a third of a second too long. What is played is stretched by at most 0.1 % (1.7
cents), by as much as the buffer's low points are off. Within a dead zone nothing is touched: samples then pass bit for
bit.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from rocktop_ray.protocols import Array

MOST_STRETCH = 1e-3
_TAPS, _PHASES = 32, 512
_WATCH = 1.0
"""Seconds of which the low point counts."""
_FULL_CORRECTION = 0.02
"""Seconds off at which the stretch is at its most."""
_DEAD = 0.004
_FADE = 0.005
_SPILL = 0.5
"""Seconds above the target from which on waiting audio is left out."""


@dataclass
class PlayoutCounts:
    """What was heard of trouble."""

    underruns: int = 0
    """Times that the buffer ran empty; silence is played until it is at its target again."""
    silence: int = 0
    """Samples of that silence."""
    dropped: int = 0
    """Samples that were left out, as they came too late to be of use."""


class Playout:
    """Blocks of any length in (``push``), blocks of any length out (``pull``). Not for several threads at once.

    Args:
        rate: Hz.
        target: seconds that are to be left when there is least: what may come late without being heard. At least as
            long as one ``pull``, as clocks that drift let a block slip past another.
    """

    def __init__(self, rate: int, target: float) -> None:
        self.rate, self.target = rate, target
        self.counts = PlayoutCounts()
        self.stretch = 0.0
        """Share by which audio is now played faster (above 0) or slower than it comes."""
        self._fade = max(1, round(_FADE * rate))
        self._filter = _sinc_table()
        self._waiting: Array = np.zeros(0, np.float32)
        self._at = 0.0
        """Of the next sample to be played, in ``_waiting``."""
        self._filling, self._begun = True, False
        self._low, self._watched = float("inf"), 0.0

    @property
    def seconds(self) -> float:
        """That wait now."""
        return max(0.0, len(self._waiting) - self._at) / self.rate

    def push(self, audio: Array) -> None:
        """The next samples of the stream."""
        self._waiting = np.concatenate([self._waiting, audio])
        surplus = self.seconds - self.target - _SPILL
        if surplus > 0 and not self._filling:
            self._spill(round((surplus + _SPILL) * self.rate))

    def pull(self, samples: int) -> Array:
        """The next samples for the device."""
        if self._filling and len(self._waiting) - self._at >= round(self.target * self.rate) + samples:
            self._filling = False
            self._begin()
        if self._filling:
            return self._silence(samples)
        there = len(self._waiting) - self._at
        if self.stretch or self._at % 1:
            there = (there - _TAPS // 2) / (1 + self.stretch)
        count = min(samples, max(0, int(there)))
        played = self._read(count)
        if count == samples:
            self._watch(samples / self.rate)
            return played
        self.counts.underruns += 1
        self._filling = True
        self._forget()
        tail = min(count, self._fade)
        played[count - tail :] *= np.linspace(1, 0, tail, dtype=np.float32)
        return np.concatenate([played, self._silence(samples - count)])

    def _watch(self, seconds: float) -> None:
        """Set the stretch by how short the buffer has been of late."""
        self._low, self._watched = min(self._low, self.seconds), self._watched + seconds
        if self._watched >= _WATCH:
            off = self._low - self.target
            self.stretch = float(np.clip(off / _FULL_CORRECTION, -1, 1)) * MOST_STRETCH if abs(off) > _DEAD else 0.0
            self._forget()

    def _forget(self) -> None:
        self._low, self._watched = float("inf"), 0.0

    def _read(self, count: int) -> Array:
        """``count`` samples from ``_at`` on; what nobody hears again is dropped."""
        ratio = 1 + self.stretch
        if not count:
            return np.zeros(0, np.float32)
        if ratio == 1 and self._at % 1 == 0:
            start = int(self._at)
            played = self._waiting[start : start + count].copy()
        else:
            at = self._at + ratio * np.arange(count)
            whole = np.floor(at).astype(np.int64)
            phase = (at - whole) * _PHASES
            low = phase.astype(np.int64)
            share = (phase - low)[:, None].astype(np.float32)
            weights = self._filter[low] * (1 - share) + self._filter[low + 1] * share
            before = _TAPS // 2 - 1
            padded = np.concatenate([np.zeros(before, np.float32), self._waiting, np.zeros(_TAPS, np.float32)])
            heard = padded[whole[:, None] + np.arange(_TAPS)]
            played = np.einsum("nt,nt->n", heard, weights, dtype=np.float32)
        self._at += count * ratio
        spent = max(0, int(self._at) - _TAPS)
        self._waiting, self._at = self._waiting[spent:], self._at - spent
        return played

    def _begin(self) -> None:
        """Audio again after silence: faded in."""
        if self._begun:
            start = int(self._at)
            end = min(len(self._waiting), start + self._fade)
            self._waiting[start:end] *= np.linspace(0, 1, end - start, dtype=np.float32)
        self._begun = True

    def _silence(self, samples: int) -> Array:
        if self._begun:
            self.counts.silence += samples
        return np.zeros(samples, np.float32)

    def _spill(self, samples: int) -> None:
        """Leave out ``samples``, with a crossfade."""
        start = int(self._at) + _TAPS
        fade = min(self._fade, len(self._waiting) - start - samples)
        if fade <= 0:
            return
        shares = np.linspace(0, 1, fade, dtype=np.float32)
        old, new = self._waiting[start : start + fade], self._waiting[start + samples : start + samples + fade]
        joined = old + (new - old) * shares
        self._waiting = np.concatenate([self._waiting[:start], joined, self._waiting[start + samples + fade :]])
        self.counts.dropped += samples
        self._forget()


def _sinc_table() -> Array:
    """``[phases + 1, taps]``: windowed sincs (Kaiser, 90 dB) that read between samples, nearly up to half the rate."""
    at = np.arange(_TAPS)[None] - (_TAPS // 2 - 1) - np.arange(_PHASES + 1)[:, None] / _PHASES
    half = _TAPS / 2
    window = np.i0(9.0 * np.sqrt(np.clip(1 - (at / half) ** 2, 0, None))) / np.i0(9.0)
    weights = np.sinc(at) * window
    return np.asarray(weights / weights.sum(1, keepdims=True), np.float32)
