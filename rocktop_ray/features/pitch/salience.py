"""From pitch salience to Hz: the decoders that the neural extractors share.

A salience matrix is ``[frames, 360]``; class k stands for a pitch in cents above 10 Hz, 20 cents apart or nearly so.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from rocktop_ray.protocols import Array

BINS = 360
CENTS_PER_BIN = 20.0
FIRST_CENT = 1997.3794084376191
"""Cents above 10 Hz of class 0 (31.7 Hz), in CREPE and RMVPE."""
_REACH = 4


def bin_cents() -> npt.NDArray[np.float64]:
    """Cents above 10 Hz of the 360 classes of CREPE and RMVPE."""
    return FIRST_CENT + CENTS_PER_BIN * np.arange(BINS, dtype=np.float64)


def cents_to_hz(cents: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """Cents above 10 Hz -> Hz."""
    return np.asarray(10.0 * 2.0 ** (np.asarray(cents, np.float64) / 1200.0))


def local_average(salience: Array, cents: npt.NDArray[np.float64], threshold: float, *, repeat_edge: bool) -> Array:
    """Salience ``[frames, bins]`` -> F0 ``[frames]`` in Hz: the weighted mean of cents around the strongest class.

    Nine classes take part. Beyond the first and last class RMVPE counts nothing; FCPE counts the edge class again
    (``repeat_edge``). A frame whose strongest class is not above ``threshold`` is unvoiced.
    """
    best = salience.argmax(axis=1)
    around = best[:, None] + np.arange(-_REACH, _REACH + 1)
    inside = np.clip(around, 0, salience.shape[1] - 1)
    weights = np.take_along_axis(salience, inside, axis=1).astype(np.float64)
    if not repeat_edge:
        weights[inside != around] = 0
    total = weights.sum(axis=1)
    voiced = salience.max(axis=1, initial=-np.inf) > threshold
    mean = (weights * cents[inside]).sum(axis=1) / np.where(total > 0, total, 1)
    return np.where(voiced & (total > 0), cents_to_hz(mean), 0).astype(np.float32)
