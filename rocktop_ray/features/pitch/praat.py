"""Praat's autocorrelation method (Boersma 1993), through parselmouth: RVC's "pm". No weights."""

from __future__ import annotations

import numpy as np
import parselmouth

from rocktop_ray.features.pitch.checks import HOP, analyse, checked_threshold, frame_count
from rocktop_ray.protocols import ENCODER_RATE, FRAME_RATE, Array

FLOOR_HZ, CEILING_HZ = 50.0, 1100.0
_WINDOW = round(3 / FLOOR_HZ * ENCODER_RATE)
_SPARE = HOP // 2


class PraatExtractor:
    """Pitch by Praat's ``To Pitch (ac)``, 50 to 1100 Hz.

    Praat centres its frames in the audio, up to half a frame off any grid. Here the audio is padded with zeros such
    that frame i falls on i * 10 ms exactly.

    Args:
        threshold: Praat's voicing threshold, 0..1.

    Raises SettingsError for a threshold out of range.
    """

    name = "pm"

    def __init__(self, *, threshold: float = 0.6) -> None:
        self.threshold = checked_threshold(threshold)

    def f0(self, audio: Array) -> Array:
        """Audio ``[samples]`` at 16 kHz -> F0 ``[samples // 160 + 1]`` in Hz, 0 = unvoiced. Raises AudioError."""
        return analyse(audio, self._extract)

    def _extract(self, audio: Array) -> Array:
        length = _WINDOW + _SPARE + (frame_count(len(audio)) - 1) * HOP
        left = (_WINDOW + _SPARE) // 2
        padded = np.pad(audio.astype(np.float64), (left, max(0, length - left - len(audio))))[:length]
        pitch = parselmouth.Sound(padded, ENCODER_RATE).to_pitch_ac(
            time_step=1 / FRAME_RATE,
            pitch_floor=FLOOR_HZ,
            pitch_ceiling=CEILING_HZ,
            voicing_threshold=self.threshold,
        )
        return np.asarray(pitch.selected_array["frequency"], np.float32)
