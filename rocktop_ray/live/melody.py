"""The melody of a stream: F0 over a window of the audio; key, autotune and what else a caller may set."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from rocktop_ray.features.pitch import curves
from rocktop_ray.features.pitch.fcpe import FcpeExtractor
from rocktop_ray.protocols import Array, PitchExtractor
from rocktop_ray.settings import ConvertSettings

DEFAULT_HZ = 150.0
"""F0 for what needs one before the first voiced frame."""
_PAST = 50
"""Frames of F0 that are kept: as far as a median filter reaches."""


@dataclass(frozen=True)
class MelodyState:
    """F0 of the last frames as heard, and the last voiced F0 as sung (0 before the first)."""

    past: Array
    sung: float


@dataclass(frozen=True)
class Melody:
    """F0 to sing of the new frames and of those that are not sure yet: ``[frames]`` each."""

    f0: Array
    """Hz, 0 where unvoiced."""
    filled: Array
    """The same with the last voiced F0 held where unvoiced."""


class MelodyWindow:
    """An extractor over windows of streams."""

    def __init__(self, extractor: PitchExtractor) -> None:
        self._extractor = extractor

    def step(self, audio: Array, frames: int) -> list[Array]:
        """Audio ``[streams, n * 160]`` at 16 kHz -> F0 of the last ``frames`` in Hz, 0 = unvoiced, for each stream."""
        if isinstance(self._extractor, FcpeExtractor) and len(audio) > 1:
            found = list(self._extractor.f0_many(audio))
        else:
            found = [self._extractor.f0(each) for each in audio]
        return [f0[: audio.shape[1] // 160][-frames:] for f0 in found]


def begin_melody() -> MelodyState:
    """Nothing heard yet."""
    return MelodyState(np.zeros(_PAST, np.float32), 0.0)


def sung(state: MelodyState, found: Array, fresh: int, settings: ConvertSettings) -> tuple[MelodyState, Melody]:
    """F0 as heard ``[frames]``, of which the first ``fresh`` are sure -> F0 to sing."""
    heard = np.concatenate([state.past, found])
    f0 = curves.median_filter(heard, settings.median_radius) if settings.median_radius else heard
    f0 = curves.shift(f0[_PAST:], settings.key)
    if settings.autotune:
        f0 = curves.autotune(f0, scale=settings.scale, root=settings.root, strength=settings.autotune)
    filled = held(f0, state.sung)
    if settings.unvoiced == "interpolate":
        f0 = filled
    last = float(filled[fresh - 1]) if state.sung or f0[:fresh].any() else 0.0
    return MelodyState(heard[fresh : fresh + _PAST].copy(), last), Melody(f0, filled)


def held(f0: Array, before: float) -> Array:
    """F0 ``[frames]`` with the last voiced value in unvoiced frames, ``before`` at first; where that is 0 too, the
    first one to come, else ``DEFAULT_HZ``.
    """
    known = np.flatnonzero(f0 > 0)
    start = before or (float(f0[known[0]]) if len(known) else DEFAULT_HZ)
    last = np.maximum.accumulate(np.where(f0 > 0, np.arange(len(f0)), -1))
    return np.where(last >= 0, f0[last], np.float32(start)).astype(np.float32)
