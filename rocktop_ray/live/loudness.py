"""Loudness of the take carried over to the stream (RVC's ``rms_mix_rate``), without waiting for what follows.

Offline, loudness is measured over a second around each moment. A stream knows only what was: it takes the second that
ends at the frame.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from rocktop_ray.protocols import FRAME_RATE, Array

_WINDOW = FRAME_RATE
"""Frames over which energy is measured: 1 s."""
_FLOOR = 1e-8
_MOST_GAIN = 10.0


@dataclass(frozen=True)
class LoudnessState:
    """Energies per sample of the last second's frames ``[frames]``, of the take and of what was made; the last gain."""

    take: np.ndarray
    made: np.ndarray
    gain: float


def begin_loudness() -> LoudnessState:
    """Silence so far."""
    return LoudnessState(np.zeros(_WINDOW), np.zeros(_WINDOW), 1.0)


def mix_loudness(state: LoudnessState, take: Array, made: Array, keep: float) -> tuple[LoudnessState, Array]:
    """Give ``made`` a loudness between its own (``keep`` 1) and the take's (0). Both ``[frames * 480]``, in time."""
    frames = len(made) // 480
    energies = [
        np.concatenate([past, np.square(audio, dtype=np.float64).reshape(frames, -1).mean(1)])
        for past, audio in ((state.take, take), (state.made, made))
    ]
    theirs, ours = (
        np.lib.stride_tricks.sliding_window_view(energy, _WINDOW)[1:].mean(1) + _FLOOR for energy in energies
    )
    gains = np.clip((theirs / ours) ** ((1 - keep) / 2), 1 / _MOST_GAIN, _MOST_GAIN)
    drawn = np.interp(np.arange(1, len(made) + 1) / 480, np.arange(frames + 1), np.concatenate([[state.gain], gains]))
    after = LoudnessState(energies[0][frames:].copy(), energies[1][frames:].copy(), float(gains[-1]))
    return after, (made * drawn).astype(np.float32)
