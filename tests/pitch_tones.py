"""Synthetic singing with a known F0, for the tests of pitch and formants."""

from __future__ import annotations

import numpy as np

RATE = 16_000


def sung(
    f0: np.ndarray, *, rate: int = RATE, formants: tuple[float, ...] = (650, 1100, 2500, 3400), level: float = 0.3
) -> np.ndarray:
    """A harmonic tone with formants that follows ``f0 [frames]`` (Hz, 0 = silence, frame i at i * 10 ms)."""
    hop = rate // 100
    samples = (len(f0) - 1) * hop + 1
    at = np.arange(samples) / hop
    voiced = f0 > 0
    curve = np.interp(at, np.flatnonzero(voiced), f0[voiced])
    gate = np.convolve(voiced[np.round(at).astype(int)].astype(float), np.ones(hop) / hop, "same")
    phase = 2 * np.pi * np.cumsum(curve) / rate
    wave = np.zeros(samples)
    for harmonic in range(1, int(min(rate, RATE) / 2 * 0.95 / curve.min()) + 1):
        frequency = harmonic * curve
        gain = np.prod([envelope(frequency, centre) for centre in formants], axis=0) / harmonic**0.3
        wave += np.where(frequency < 7600, gain, 0) * np.sin(harmonic * phase)
    return (wave * gate * level / np.abs(wave).max()).astype(np.float32)


def envelope(frequency: np.ndarray, centre: float) -> np.ndarray:
    """Magnitude of a resonance of 80 to 200 Hz bandwidth."""
    bandwidth = 60 + 0.05 * centre
    return centre**2 / np.hypot(frequency**2 - centre**2, bandwidth * frequency)


def vibrato_glide(seconds: float = 3.0, low: float = 140, high: float = 420) -> np.ndarray:
    """F0 ``[frames]``: a glide over ``low .. high`` with 50 cents of vibrato at 5.5 Hz, and a silent gap."""
    t = np.arange(round(seconds * 100) + 1) / 100
    f0 = low * (high / low) ** (t / seconds) * 2 ** (50 / 1200 * np.sin(2 * np.pi * 5.5 * t))
    f0[(t > 0.45 * seconds) & (t < 0.55 * seconds)] = 0
    return f0
