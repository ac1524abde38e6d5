"""Levels: peak, RMS, normalising, and the silence at both ends of a recording."""

from __future__ import annotations

import numpy as np

from rocktop_ray.errors import SettingsError
from rocktop_ray.protocols import Array

CEILING_DBFS = -1.0
"""Converted takes never peak above this: louder ones are turned down as a whole."""
FLOOR_DBFS = -200.0
"""What silence is called in dB."""


def to_db(amplitude: float) -> float:
    """Amplitude, full scale 1 -> dBFS, not below FLOOR_DBFS."""
    return max(20 * float(np.log10(max(amplitude, 1e-30))), FLOOR_DBFS)


def from_db(db: float) -> float:
    """DBFS -> amplitude."""
    return float(10 ** (db / 20))


def peak(audio: Array) -> float:
    """The largest absolute sample, 0 for nothing."""
    return float(np.abs(audio).max(initial=0.0))


def rms(audio: Array) -> float:
    """Root of the mean square of all samples, 0 for nothing."""
    return float(np.sqrt(np.mean(np.square(audio, dtype=np.float64)))) if audio.size else 0.0


def normalising_gain(largest: float, dbfs: float = -1.0) -> float:
    """The factor that brings a peak amplitude to ``dbfs``; 1 for silence. Raises SettingsError above 0 dBFS."""
    if not -120.0 <= dbfs <= 0.0:
        raise SettingsError(f"the peak must be from -120 to 0 dBFS, not {dbfs:g}")
    return from_db(dbfs) / largest if largest > 0 else 1.0


def sounding_span(audio: Array, rate: int, threshold_db: float = -50.0, keep_seconds: float = 0.05) -> tuple[int, int]:
    """First and one-past-last sample to keep when the quiet ends are cut; ``(0, 0)`` if all is quiet.

    Args:
        audio: ``[n]`` or ``[n, channels]``.
        rate: Hz.
        threshold_db: dBFS of the RMS of 10 ms blocks above which something sounds.
        keep_seconds: of quiet left at each end.
    """
    hop = max(1, rate // 100)
    if not len(audio):
        return 0, 0
    power = np.square(audio.reshape(len(audio), -1), dtype=np.float64).mean(axis=1)
    starts = np.arange(0, len(power), hop)
    counts = np.diff(np.append(starts, len(power)))
    loud = np.flatnonzero(np.add.reduceat(power, starts) / counts > from_db(threshold_db) ** 2)
    if not len(loud):
        return 0, 0
    keep = round(keep_seconds * rate)
    return max(0, int(loud[0]) * hop - keep), min(len(power), (int(loud[-1]) + 1) * hop + keep)
