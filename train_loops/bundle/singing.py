"""Speech re-sung with WORLD: steady vowels are held, the melody is replaced by notes with vibrato.

WORLD (Morise et al. 2016) splits speech into F0, spectral envelope and aperiodicity every 5 ms; all three are read
along a slower time axis, and F0 is replaced.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pyworld
import scipy.ndimage
import scipy.signal

Floats = npt.NDArray[np.float64]
PERIOD = 0.005


def steadiness(envelope: Floats, f0: Floats) -> Floats:
    """How much each frame is the middle of a vowel: ``[frames]`` in 0..1, from voicing, level and spectral change."""
    level = 10 * np.log10(envelope.sum(1) + 1e-12)
    shape = np.log(envelope[:, 2:256:4] + 1e-12)
    kernel = np.hanning(11) / np.hanning(11).sum()
    shape = scipy.ndimage.convolve1d(shape - shape.mean(1, keepdims=True), kernel, axis=0)
    change = np.abs(np.gradient(shape, axis=0)).mean(1)
    typical = np.median(change[f0 > 0]) if (f0 > 0).any() else 1.0
    score = (f0 > 0) * np.clip((level - level.max() + 25) / 10, 0, 1) * np.clip(1.7 - change / typical, 0, 1)
    return np.convolve(score, kernel, "same")


def melody(starts: npt.NDArray[np.int64], frames: int, low: float, high: float, random: np.random.Generator) -> Floats:
    """F0 in Hz for ``frames`` of 5 ms: a random walk over a major scale in ``low .. high``, a note per start."""
    steps = np.array([0, 2, 4, 5, 7, 9, 11])
    root = random.uniform(0, 12)
    scale = np.sort(np.concatenate([steps + root + 12 * octave for octave in range(0, 10)]))
    hertz = 16.35 * 2 ** (scale / 12)
    notes = np.log2(hertz[(hertz >= low) & (hertz <= high)])
    position = int(random.integers(len(notes)))
    curve = np.full(frames, notes[position])
    time = np.arange(frames) * PERIOD
    for start in starts:
        position = int(np.clip(position + random.integers(-3, 4), 0, len(notes) - 1))
        since = time[start:] - time[start]
        vibrato = random.uniform(10, 45) / 1200 * np.clip((since - 0.2) / 0.3, 0, 1)
        curve[start:] = notes[position] + vibrato * np.sin(2 * np.pi * random.uniform(4.8, 6.5) * since)
    kernel = np.hanning(15) / np.hanning(15).sum()
    smooth = np.convolve(np.pad(curve, 7, "edge"), kernel, "valid")
    drift = np.cumsum(random.normal(0, 0.6 / 1200, frames)) * 0.98
    return np.asarray(2 ** (smooth + drift - drift.mean()), np.float64)


def resing(
    audio: Floats, rate: int, f0: Floats, *, hold: float, low: float, high: float, random: np.random.Generator
) -> tuple[Floats, Floats]:
    """Speech -> the same words sung between ``low`` and ``high`` Hz, steady vowels ``hold`` times longer.

    ``f0`` of the speech every 5 ms, 0 = unvoiced. Returns the audio and its exact F0 every 5 ms.
    """
    times = np.arange(len(f0)) * PERIOD
    envelope = pyworld.cheaptrick(audio, f0, times, rate)
    aperiodicity = pyworld.d4c(audio, f0, times, rate)
    steady = steadiness(envelope, f0)
    slow = np.cumsum(1 + (hold - 1) * steady)
    frames = int(slow[-1])
    place = np.interp(np.arange(frames), slow, np.arange(len(f0)))
    left = np.minimum(place.astype(int), len(f0) - 2)
    part = (place - left)[:, None]

    def warp(table: Floats) -> Floats:
        return np.ascontiguousarray(table[left] * (1 - part) + table[left + 1] * part)

    peaks, _ = scipy.signal.find_peaks(np.interp(place, np.arange(len(steady)), steady), height=0.2, distance=50)
    starts = np.maximum(peaks - 20, 0)
    voiced = f0[np.round(place).astype(int).clip(0, len(f0) - 1)] > 0
    new_f0 = melody(starts, frames, low, high, random) * voiced
    sung = pyworld.synthesize(new_f0, np.exp(warp(np.log(envelope + 1e-16))), warp(aperiodicity), rate, PERIOD * 1000)
    return sung, new_f0
