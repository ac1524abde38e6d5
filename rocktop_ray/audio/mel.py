"""Mel filter banks, as librosa makes them: the networks in use were trained on those.

Two mel scales (HTK: O'Shaughnessy's formula; Slaney: linear below 1 kHz, logarithmic above, as in the Auditory
Toolbox); each triangle is divided by its width in Hz.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from rocktop_ray.protocols import Array

_LINEAR_HZ = 200 / 3
_LOG_STEP = math.log(6.4) / 27


def hz_to_mel(hz: npt.ArrayLike, *, htk: bool) -> npt.NDArray[np.float64]:
    """Hz to mel, of the HTK or the Slaney scale."""
    hz = np.asarray(hz, np.float64)
    if htk:
        return 2595.0 * np.log10(1.0 + hz / 700.0)
    return np.where(hz < 1000, hz / _LINEAR_HZ, 15 + np.log(np.maximum(hz, 1e-9) / 1000) / _LOG_STEP)


def mel_to_hz(mel: npt.ArrayLike, *, htk: bool) -> npt.NDArray[np.float64]:
    """Inverse of :func:`hz_to_mel`."""
    mel = np.asarray(mel, np.float64)
    if htk:
        return 700.0 * (10.0 ** (mel / 2595.0) - 1.0)
    return np.where(mel < 15, mel * _LINEAR_HZ, 1000 * np.exp((mel - 15) * _LOG_STEP))


def mel_filters(rate: int, n_fft: int, bands: int, low: float, high: float, *, htk: bool) -> Array:
    """Triangular filters ``[bands, n_fft // 2 + 1]``, each with area 1 (in Hz), between ``low`` and ``high`` Hz."""
    first, last = hz_to_mel([low, high], htk=htk)
    edges = mel_to_hz(np.linspace(first, last, bands + 2), htk=htk)
    bins = np.linspace(0, rate / 2, n_fft // 2 + 1)
    rise = (bins - edges[:-2, None]) / (edges[1:-1] - edges[:-2])[:, None]
    fall = (edges[2:, None] - bins) / (edges[2:] - edges[1:-1])[:, None]
    triangles = np.maximum(0, np.minimum(rise, fall))
    return (triangles * (2 / (edges[2:] - edges[:-2]))[:, None]).astype(np.float32)
