"""Short-time objective intelligibility by pystoi (MIT, Manuel Pariente)."""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np

from rocktop_ray.errors import AudioError
from rocktop_ray.protocols import ENCODER_RATE, Array

PACKAGE = "pystoi"
_SHORTEST = 0.45
"""Seconds: 30 frames of 12.8 ms steps, what one segment of the measure needs."""


@dataclass(frozen=True)
class Intelligibility:
    """Both 0 to 1, of the result against the source; higher is better."""

    stoi: float
    """Taal, Hendriks, Heusdens and Jensen 2011."""
    estoi: float
    """The extended one, Jensen and Taal 2016: also for noise that comes and goes."""


def intelligibility(reference: Array, other: Array) -> Intelligibility:
    """STOI and ESTOI of two mono takes ``[samples]`` at 16 kHz, equally long.

    Mean correlation of third-octave band envelopes (150 Hz to 4.3 kHz) over segments of 384 ms; frames of the reference
    more than 40 dB below its loudest are left out. Made for speech in noise: on singing a relative measure only.

    Raises AudioError if the lengths differ, or less than half a second sounds.
    """
    if reference.ndim != 1 or reference.shape != other.shape:
        raise AudioError(f"the two recordings must be mono and equally long, not {reference.shape} and {other.shape}")
    if len(reference) < _SHORTEST * ENCODER_RATE or not np.any(reference):
        raise AudioError("too short or silent: it takes half a second of sound")
    from pystoi import stoi

    a, b = np.asarray(reference, np.float64), np.asarray(other, np.float64)
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)  # it answers 1e-5 to what is too short, with a warning
        try:
            plain, extended = (float(stoi(a, b, ENCODER_RATE, extended=form)) for form in (False, True))
        except RuntimeWarning as warning:
            raise AudioError("too little sound: it takes half a second") from warning
    return Intelligibility(plain, extended)
