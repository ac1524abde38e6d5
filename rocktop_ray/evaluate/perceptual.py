"""Predicted listeners' scores of a result against its reference: PESQ and ViSQOL, by the packages that carry them.

Both are made for clips of about ten seconds. Longer takes are cut into such windows, and the scores averaged.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from rocktop_ray.errors import AudioError
from rocktop_ray.evaluate.windows import mean_or_none, sounding_windows
from rocktop_ray.protocols import ENCODER_RATE, TAKE_RATE, Array

PESQ_PACKAGE, VISQOL_MODULE = "pesq", "visqol"
_WINDOW = 10
"""Seconds."""


def pesq_score(reference: Array, other: Array) -> float:
    """Wide-band PESQ (ITU-T P.862.2) of two mono takes ``[samples]`` at 16 kHz, by ``pesq``: MOS-LQO 1.04 to 4.64.

    Higher is better. Made for telephone speech up to 7 kHz.

    Raises AudioError if the lengths differ, or there is less than a quarter of a second, or no sound in it.
    """
    from pesq import BufferTooShortError, NoUtterancesError, pesq

    _check(reference, other)
    scores = []
    for window in sounding_windows(reference, _WINDOW * ENCODER_RATE, ENCODER_RATE // 4 + 1):
        if not np.any(other[window]):
            scores.append(1.04)  # nothing left: the lowest that the mapping gives
            continue
        try:
            scores.append(float(pesq(ENCODER_RATE, reference[window], other[window], "wb")))
        except (NoUtterancesError, BufferTooShortError):
            continue  # no voice activity in these seconds
    return _mean(scores, "PESQ")


class Visqol:
    """ViSQOL v3 (Chinen et al. 2020) in audio mode at 48 kHz, by ``visqol-python`` with the model of its package."""

    def __init__(self) -> None:
        from visqol import VisqolApi

        self._api: Any = VisqolApi()
        self._api.create(mode="audio")

    def score(self, reference: Array, other: Array) -> float:
        """MOS-LQO, 1 to about 4.73 (equal recordings), of two mono takes ``[samples]`` at 48 kHz. Higher is better.

        Similarity of gammatone spectrograms of 50 Hz to 24 kHz, patch by patch, and a support vector regression trained
        on coded music and speech.

        Raises AudioError if the lengths differ, or less than a second sounds.
        """
        _check(reference, other)
        windows = sounding_windows(reference, _WINDOW * TAKE_RATE, TAKE_RATE)
        scores = []
        for window in windows:
            a, b = np.asarray(reference[window], np.float64), np.asarray(other[window], np.float64)
            if not np.any(b):
                scores.append(1.0)
                continue
            try:
                scores.append(float(self._api.measure_from_arrays(a, b, TAKE_RATE).moslqo))
            except ValueError:  # too few frames of sound for one patch
                continue
        return _mean(scores, "ViSQOL")


def _check(reference: Array, other: Array) -> None:
    if reference.ndim != 1 or reference.shape != other.shape:
        raise AudioError(f"the two recordings must be mono and equally long, not {reference.shape} and {other.shape}")


def _mean(scores: list[float], name: str) -> float:
    mean = mean_or_none(scores)
    if mean is None:
        raise AudioError(f"too short or silent for {name}")
    return mean
