"""The excitation: a band-limited pulse train whose phase is known exactly at every sample."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from rocktop_ray.protocols import Array

DEFAULT_HZ = 150.0
"""F0 of a take without any voiced frame: the pulses are there, the network keeps them silent."""
HALF_WIDTH_SECONDS = 32 / 48_000
CUTOFF = 0.97
"""Of half the sample rate."""


def filled(f0: Array) -> npt.NDArray[np.float64]:
    """F0 ``[frames]`` in Hz with 0 = unvoiced -> F0 without gaps, interpolated on the log scale, float64."""
    f0 = np.asarray(f0, np.float64)
    known = np.flatnonzero(f0 > 0)
    if not len(known):
        return np.full(len(f0), DEFAULT_HZ)
    return np.exp(np.interp(np.arange(len(f0)), known, np.log(f0[known])))


def cycles(f0: npt.NDArray[np.float64], hop: int, rate: int) -> npt.NDArray[np.float64]:
    """Phase in cycles at the start of each frame, for F0 ``[frames]`` that runs straight from frame to frame."""
    following = np.append(f0[1:], f0[-1])
    return np.concatenate([[0.0], np.cumsum((f0 + following) / 2 * hop / rate)[:-1]])


def pulses(f0: npt.NDArray[np.float64], first: int, last: int, hop: int, rate: int) -> Array:
    """Pulse train of frames ``first .. last``: ``[(last - first) * hop]``.

    Each pulse is a windowed sinc at its exact time. A pulse has the energy of the period that it stands for, so that
    the train has the power density of white noise with unit variance, whatever F0.

    Args:
        f0: F0 of the whole take in Hz, all > 0, ``[frames]``; the phase is 0 at its first sample.
    """
    melody = np.append(f0, f0[-1])[first : last + 1]
    return shaped(melody, cycles(f0, hop, rate)[first:last], hop, rate).reshape(-1)


def shaped(melody: npt.NDArray[np.float64], phases: npt.NDArray[np.float64], hop: int, rate: int) -> Array:
    """Pulses ``[frames, hop]`` for F0 at each frame and at the end ``[frames + 1]``, and the cycles at each frame."""
    return shaped_between(melody[:-1], melody[1:], phases, hop, rate)


def shaped_between(
    before: npt.NDArray[np.float64],
    after: npt.NDArray[np.float64],
    phases: npt.NDArray[np.float64],
    hop: int,
    rate: int,
) -> Array:
    """The same for frames that need not be neighbours: F0 at the start and at the end of each, ``[frames]``."""
    now, following = before[:, None], after[:, None]
    time = np.arange(hop)[None]
    instant = now + (following - now) * time / hop
    phase = phases[:, None] + (now * time + (following - now) * time**2 / (2 * hop)) / rate
    distance = (phase - np.round(phase)) * rate / instant
    half = HALF_WIDTH_SECONDS * rate
    train = np.zeros(distance.shape, np.float32)
    near = np.abs(distance) < half
    x = distance[near]
    train[near] = np.sqrt(rate / instant[near]) * CUTOFF * np.sinc(CUTOFF * x) * (0.5 + 0.5 * np.cos(np.pi * x / half))
    return train
