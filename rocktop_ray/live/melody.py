"""The melody of a stream: F0 as heard over windows or frame by frame; key, autotune and what else a caller may set."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
import torch

from rocktop_ray.chunks import FRAME
from rocktop_ray.errors import SettingsError
from rocktop_ray.features.pitch import curves
from rocktop_ray.features.pitch.fcpe import FcpeExtractor
from rocktop_ray.models.listener import ListenerState, PitchStream
from rocktop_ray.protocols import Array, PitchExtractor
from rocktop_ray.settings import ConvertSettings

DEFAULT_HZ = 150.0
"""F0 for what needs one before the first voiced frame."""
_PAST = 50
"""Frames of F0 that are kept: as far as a median filter reaches."""


@dataclass(frozen=True)
class HeardState:
    """An F0 source under way, and the F0 of the frames that are not due yet."""

    source: ListenerState
    coming: Array


@dataclass(frozen=True)
class MelodyState:
    """F0 of the last frames as heard, and the last voiced F0 as sung (0 before the first)."""

    past: Array
    sung: float
    heard: HeardState | None = None
    """Of an F0 source that remembers."""


@dataclass(frozen=True)
class Melody:
    """F0 to sing of the new frames and of those that are not sure yet: ``[frames]`` each."""

    f0: Array
    """Hz, 0 where unvoiced."""
    filled: Array
    """The same with the last voiced F0 held where unvoiced."""


class MelodySource(Protocol):
    """Where the F0 of streams comes from."""

    needs: int
    """Samples at 16 kHz before the frames asked for that ``step`` must be given."""

    def begin(self) -> MelodyState:
        """Nothing heard yet."""
        ...

    def step(self, states: Sequence[MelodyState], audio: Array, fresh: int) -> tuple[list[MelodyState], list[Array]]:
        """Audio ``[streams, needs + (fresh + ahead) * 160]`` at 16 kHz -> states, F0 ``[fresh + ahead]`` of each.

        F0 is in Hz, 0 = unvoiced. The first ``fresh`` frames will not come again.
        """
        ...


class MelodyWindow:
    """An extractor over windows of streams, with ``left`` frames of context."""

    def __init__(self, extractor: PitchExtractor, left: int) -> None:
        self._extractor, self._left, self.needs = extractor, left, left * FRAME

    def begin(self) -> MelodyState:
        """Nothing heard yet."""
        return begin_melody()

    def step(self, states: Sequence[MelodyState], audio: Array, fresh: int) -> tuple[list[MelodyState], list[Array]]:
        """See ``MelodySource``."""
        if isinstance(self._extractor, FcpeExtractor) and len(audio) > 1:
            found = list(self._extractor.f0_many(audio))
        else:
            found = [self._extractor.f0(each) for each in audio]
        return list(states), [f0[: audio.shape[1] // FRAME][self._left :] for f0 in found]


class MelodyListener:
    """The listener's pitch, each frame heard once.

    It is some frames behind the audio itself: of the frames ``ahead`` the last ones are held from those before.
    Raises SettingsError if it is further behind than the stream waits.
    """

    needs = 0

    def __init__(self, pitch: PitchStream, ahead: int) -> None:
        if ahead < pitch.lag:
            raise SettingsError(
                f"with the listener's pitch a stream hears at least {pitch.lag} frames ahead, not {ahead}",
                stage="pitch",
            )
        self._pitch, self._early = pitch, ahead - pitch.lag

    def begin(self) -> MelodyState:
        """Nothing heard yet."""
        return replace(begin_melody(), heard=HeardState(self._pitch.begin(), np.zeros(self._early, np.float32)))

    def step(self, states: Sequence[MelodyState], audio: Array, fresh: int) -> tuple[list[MelodyState], list[Array]]:
        """See ``MelodySource``."""
        heard = [state.heard for state in states if state.heard is not None]
        new = torch.from_numpy(np.ascontiguousarray(audio[:, -fresh * FRAME :]))
        sources, f0 = self._pitch.step([each.source for each in heard], new)
        after, found = [], []
        for state, before, source, own in zip(states, heard, sources, f0.numpy(), strict=True):
            known = np.concatenate([before.coming, own])
            found.append(np.pad(known, (0, self._pitch.lag), mode="edge"))
            after.append(replace(state, heard=HeardState(source, known[fresh:].copy())))
        return after, found


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
    return replace(state, past=heard[fresh : fresh + _PAST].copy(), sung=last), Melody(f0, filled)


def held(f0: Array, before: float) -> Array:
    """F0 ``[frames]`` with the last voiced value in unvoiced frames, ``before`` at first; where that is 0 too, the
    first one to come, else ``DEFAULT_HZ``.
    """
    known = np.flatnonzero(f0 > 0)
    start = before or (float(f0[known[0]]) if len(known) else DEFAULT_HZ)
    last = np.maximum.accumulate(np.where(f0 > 0, np.arange(len(f0)), -1))
    return np.where(last >= 0, f0[last], np.float32(start)).astype(np.float32)
