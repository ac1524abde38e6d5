"""Harvest (Morise 2017) refined by StoneMask, from WORLD. No weights; slow and smooth, for clean voices."""

from __future__ import annotations

import numpy as np
import pyworld
from scipy.ndimage import median_filter

from rocktop_ray.errors import SettingsError
from rocktop_ray.features.pitch.checks import analyse
from rocktop_ray.protocols import ENCODER_RATE, FRAME_RATE, Array

FLOOR_HZ, CEILING_HZ = 50.0, 1100.0


class HarvestExtractor:
    """Pitch by Harvest, 50 to 1100 Hz.

    Args:
        median: length of the median filter over the result, odd; 1 is off. RVC's default is 3.

    Raises SettingsError for a median filter that is not odd or out of 1..51.
    """

    name = "harvest"

    def __init__(self, *, median: int = 3) -> None:
        if median not in range(1, 52, 2):
            raise SettingsError(f"the median filter of harvest is odd, 1 to 51, not {median}", stage="pitch")
        self.median = int(median)

    def f0(self, audio: Array) -> Array:
        """Audio ``[samples]`` at 16 kHz -> F0 ``[samples // 160 + 1]`` in Hz, 0 = unvoiced. Raises AudioError."""
        return analyse(audio, self._extract)

    def _extract(self, audio: Array) -> Array:
        wave = audio.astype(np.float64)
        period = 1000 / FRAME_RATE
        f0, times = pyworld.harvest(wave, ENCODER_RATE, f0_floor=FLOOR_HZ, f0_ceil=CEILING_HZ, frame_period=period)
        refined = pyworld.stonemask(wave, f0, times, ENCODER_RATE)
        return median_filter(refined, self.median, mode="constant").astype(np.float32)
