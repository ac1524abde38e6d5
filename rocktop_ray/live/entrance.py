"""The take as the networks hear it: at 16 kHz, high-passed, formants moved."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from rocktop_ray.audio.highpass import CUTOFF
from rocktop_ray.features import formant
from rocktop_ray.live.highpass import StreamHighpass
from rocktop_ray.live.resample import StreamResampler
from rocktop_ray.protocols import ENCODER_RATE, TAKE_RATE, Array
from rocktop_ray.settings import ConvertSettings

SHAPED = ENCODER_RATE // 5
"""Samples before a hop that a formant shift hears: 0.2 s."""


@dataclass(frozen=True)
class EntranceState:
    """A stream on its way in."""

    entering: Array
    """What the resampler still hears."""
    filtered: np.ndarray
    """State of the high-pass."""
    low: Array
    """The last of the take at 16 kHz, as much as a formant shift hears again."""
    audio: Array
    """The same with its formants moved, as much as encoder and extractor hear again."""


def moved_formants(known: Array, semitones: float) -> Array:
    """A hop ``[samples]`` at 16 kHz with its formants moved, of what is known of the stream: 0.2 s more, before it.

    The only setting that makes a hop dearer: some milliseconds, for each stream by itself.
    """
    return formant.shift(known, ENCODER_RATE, semitones, last=len(known) - SHAPED)


class Entrance:
    """Hops at 48 kHz to what the ears are given; ``needs`` samples at 16 kHz come again with every hop."""

    def __init__(self, needs: int) -> None:
        self._needs = needs
        self._into = StreamResampler(TAKE_RATE, ENCODER_RATE)
        self._highpass = StreamHighpass(CUTOFF, ENCODER_RATE)
        self.delay = self._into.delay
        """Samples at 48 kHz by which audio lags behind the hops."""

    def begin(self) -> EntranceState:
        """Silence so far."""
        return EntranceState(
            self._into.begin(), self._highpass.begin(), np.zeros(SHAPED, np.float32), np.zeros(self._needs, np.float32)
        )

    def beside(self, state: EntranceState) -> EntranceState:
        """The same stream for ears that need more or less of the past."""
        audio = np.concatenate([np.zeros(self._needs, np.float32), state.audio])[len(state.audio) :]
        return replace(state, audio=audio)

    def step(
        self, states: Sequence[EntranceState], hops: Sequence[Array], settings: Sequence[ConvertSettings]
    ) -> tuple[list[EntranceState], list[Array]]:
        """Hops ``[samples]`` of several streams -> audio ``[needs + samples // 3]`` of each."""
        entering, low = self._into.step(np.stack([state.entering for state in states]), np.stack(hops))
        filtered, clean = self._highpass.step(np.stack([state.filtered for state in states]), low)
        after, heard = [], []
        for place, (state, wanted) in enumerate(zip(states, settings, strict=True)):
            known = np.concatenate([state.low, clean[place].astype(np.float32)])
            fresh = moved_formants(known, wanted.formant) if wanted.formant else known[SHAPED:]
            audio = np.concatenate([state.audio, fresh])
            heard.append(audio)
            kept = audio[len(fresh) :].copy()
            after.append(
                EntranceState(entering[place].copy(), filtered[place].copy(), known[len(fresh) :].copy(), kept)
            )
        return after, heard
