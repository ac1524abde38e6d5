"""The high-pass that RVC applies to a take before anything else."""

from __future__ import annotations

from functools import cache

import numpy as np
import numpy.typing as npt

from rocktop_ray.protocols import ENCODER_RATE

CUTOFF = 48.0
"""Hz. Below any sung F0; removes rumble and DC."""


@cache
def _coefficients() -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    from scipy import signal  # takes a second to import; streams do without

    numerator, denominator = signal.butter(5, CUTOFF, btype="high", fs=ENCODER_RATE)
    return numerator, denominator


def highpass(audio: npt.NDArray[np.floating]) -> npt.NDArray[np.float64]:
    """Audio ``[samples]`` at 16 kHz, more than 18 samples -> the same without what lies below 48 Hz.

    Butterworth of order 5, run forwards and backwards (zero phase), in float64: at 48 Hz of 16 kHz the transfer
    function's poles lie too close to 1 for float32.
    """
    from scipy import signal

    return signal.filtfilt(*_coefficients(), audio.astype(np.float64))
