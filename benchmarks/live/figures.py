"""What is made of measured numbers. Pure: arrays in, figures out."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt
from scipy import fft, signal

Array = npt.NDArray[np.float32]

_STEP = 0.001
"""Seconds between two columns of a sound picture."""
_BANDS = 12


@dataclass(frozen=True)
class Spread:
    """Percentiles; NaN where nothing was measured."""

    p50: float
    p95: float
    p99: float
    max: float
    count: int


def spread(values: Iterable[float]) -> Spread:
    """Of numbers in any order; those that are not finite do not count."""
    found = np.array([value for value in values if np.isfinite(value)], np.float64)
    if not len(found):
        return Spread(*[float("nan")] * 4, 0)
    return Spread(*(float(value) for value in np.percentile(found, (50, 95, 99, 100))), len(found))


def missed_per_hour(answers: Sequence[float], allowed: float, block: float) -> float:
    """Blocks of ``block`` seconds, per hour of stream, whose answer took longer than ``allowed`` seconds."""
    if not len(answers):
        return float("nan")
    return sum(not answer <= allowed for answer in answers) * 3600 / (len(answers) * block)


def underruns(arrived: Sequence[float], block: float, cushion: float) -> int:
    """How often a player runs dry that begins ``cushion`` seconds after the first block, and after each underrun again.

    Args:
        arrived: when each block of ``block`` seconds came, in order; NaN never.
    """
    found, start, played = 0, None, 0
    for came in arrived:
        if not np.isfinite(came):
            found, start = found + 1, None
            continue
        if start is None or came > start + played * block:
            found += start is not None
            start, played = came + cushion, 0
        played += 1
    return found


def linear_cost(sessions: Sequence[int], seconds: Sequence[float]) -> tuple[float, float]:
    """Least squares of ``seconds = fixed + each * n`` -> fixed and each, neither below 0."""
    if len(sessions) < 2:
        return 0.0, seconds[0] / sessions[0]
    each, fixed = np.polyfit(np.asarray(sessions, float), np.asarray(seconds, float), 1)
    if fixed < 0:
        n = np.asarray(sessions, float)
        return 0.0, float(n @ np.asarray(seconds, float) / (n @ n))
    return float(fixed), max(0.0, float(each))


def sessions_that_fit(fixed: float, each: float, period: float, share: float) -> int:
    """Most sessions of which one turn takes at most ``share`` of the ``period`` between two turns."""
    room = period * share - fixed
    if room <= 0:
        return 0
    return int(room / each + 1e-9) if each > 0 else 10_000


def growth_per_second(series: Iterable[Sequence[tuple[float, float]]], settled: float) -> float:
    """One slope for several processes, each with a level of its own.

    Args:
        series: of each process ``(time, value)`` in order.
        settled: seconds after its first sample from which on a process counts: before that it loads.

    Least squares with an intercept for each; 0 where there is too little to say anything.
    """
    above, below = 0.0, 0.0
    for samples in series:
        if not samples:
            continue
        kept = np.array([pair for pair in samples if pair[0] - samples[0][0] >= settled], float)
        if len(kept) < 3:
            continue
        time, value = kept[:, 0] - kept[:, 0].mean(), kept[:, 1] - kept[:, 1].mean()
        above += float(time @ value)
        below += float(time @ time)
    return above / below if below > 0 else 0.0


def rise(samples: Sequence[tuple[float, float]], settled: float) -> float:
    """By how much one process's value is higher in the end than when it had settled; NaN if it did not live for long
    enough to say.

    Args:
        samples: ``(time, value)`` in order.
        settled: seconds after the first sample from which on it counts.

    Medians of the first and the last fifth of what counts, which is ten samples or more: a peak is no growth.
    """
    kept = [value for time, value in samples if time - samples[0][0] >= settled]
    fifth = len(kept) // 5
    return float(np.median(kept[-fifth:]) - np.median(kept[:fifth])) if fifth >= 2 else float("nan")


def wave_lag(reference: Array, heard: Array, most: int) -> tuple[int, float]:
    """Samples (0..most) by which ``heard`` comes after ``reference``, and how alike they then are (1 is the same).

    Cross-correlation, each lag divided by the energy of what it compares.
    """
    length = min(len(reference), len(heard))
    reference, heard = reference[:length].astype(np.float64), heard[:length].astype(np.float64)
    size = fft.next_fast_len(length + most)
    product = fft.irfft(fft.rfft(heard, size) * np.conj(fft.rfft(reference, size)), size)[: most + 1]
    before = np.concatenate([[0.0], np.cumsum(reference**2)])
    after = np.concatenate([[0.0], np.cumsum(heard**2)])
    lags = np.arange(min(most, length) + 1)
    energy = before[length - lags] * (after[length] - after[lags])
    alike = product[: len(lags)] / np.sqrt(np.maximum(energy, 1e-20))
    best = int(np.argmax(alike))
    return best, float(alike[best])


def sound_lag(reference: Array, heard: Array, rate: int, most: float) -> tuple[float, float]:
    """Seconds (0..most) by which ``heard`` sounds after ``reference``, to a millisecond, and how alike they then are.

    Compares loudness in bands over time, so it also works where phases differ: for another rendering of the same take.
    """
    pictures = [_picture(wave, rate) for wave in (reference, heard)]
    columns = min(len(pictures[0]), len(pictures[1]))
    before, after = (picture[:columns] - picture[:columns].mean(0) for picture in pictures)
    best, found = 0, -1.0
    for lag in range(min(round(most / _STEP), columns - 2) + 1):
        one, other = before[: columns - lag], after[lag:]
        alike = float((one * other).sum() / max(1e-20, np.sqrt((one**2).sum() * (other**2).sum())))
        if alike > found:
            best, found = lag, alike
    return best * _STEP, found


def click_lags(positions: Sequence[int], pulse: Array, heard: Array, expected: int, around: int) -> list[int | None]:
    """Samples by which each click that went in at ``positions`` came out later, looked for ``around`` samples on both
    sides of ``expected``; None where it did not come.
    """
    lags: list[int | None] = []
    for position in positions:
        first = position + expected - around
        window = heard[max(0, first) : position + expected + around + len(pulse)]
        if first < 0 or len(window) < len(pulse) + around:
            continue
        found = np.correlate(window.astype(np.float64), pulse.astype(np.float64), "valid")
        best = int(np.argmax(found))
        lags.append(first + best - position if found[best] > 0.25 * float(pulse @ pulse) else None)
    return lags


def _picture(wave: Array, rate: int) -> npt.NDArray[np.float64]:
    """Log energy ``[columns, bands]`` every millisecond, in bands that grow like hearing does."""
    step = max(1, round(rate * _STEP))
    size = 1 << (round(0.02 * rate) - 1).bit_length()
    padded = np.concatenate([np.zeros(size // 2), wave.astype(np.float64), np.zeros(size // 2)])
    frames = np.lib.stride_tricks.sliding_window_view(padded, size)[::step]
    window = signal.windows.hann(size)
    edges = np.geomspace(120, min(8000, rate * 0.45), _BANDS + 1) * size / rate
    lows = np.unique(edges.astype(int))
    parts = []
    for first in range(0, len(frames), 500):
        power = np.abs(fft.rfft(frames[first : first + 500] * window, axis=1)) ** 2
        parts.append(np.stack([power[:, a:b].sum(1) for a, b in pairwise(lows)], 1))
    energy = np.concatenate(parts)
    return np.asarray(np.log(energy + 1e-4 * energy.max() + 1e-12))
