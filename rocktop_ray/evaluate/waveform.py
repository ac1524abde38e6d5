"""Distances between waveforms that are in time with each other to the sample."""

from __future__ import annotations

import numpy as np

from rocktop_ray.errors import AudioError
from rocktop_ray.protocols import Array

_BOUND_DB = 100.0


def si_sdr(reference: Array, other: Array) -> float:
    """Scale-invariant signal-to-distortion ratio in dB (Le Roux et al., "SDR - half-baked or well done?", 2019).

    ``10 log10(|t|^2 / |t - e|^2)`` with ``e`` the other and ``t`` its projection on the reference, both without their
    mean. Higher is better; a change of level or polarity does not count, a delay of one sample does. Cut to -100 to
    100 dB: equal recordings have no finite ratio.

    Raises AudioError if the lengths differ, or the reference is constant.
    """
    if reference.ndim != 1 or reference.shape != other.shape:
        raise AudioError(f"the two recordings must be mono and equally long, not {reference.shape} and {other.shape}")
    wanted, found = np.asarray(reference, np.float64), np.asarray(other, np.float64)
    wanted, found = wanted - wanted.mean(), found - found.mean()
    energy = float(wanted @ wanted)
    if energy <= 1e-20 * len(wanted):
        raise AudioError("the reference is silent; there is nothing to compare")
    part = (found @ wanted) / energy * wanted
    kept, lost = float(part @ part), float(np.square(found - part).sum())
    floor = energy * 1e-30  # of a silent other: neither kept nor lost
    return float(np.clip(10 * np.log10((kept + floor) / (lost + floor)), -_BOUND_DB, _BOUND_DB))
