"""Audio of a stream to what is sung: content units and melody, over windows or by a listener that is causal by design.

Several streams are heard at once where the networks allow it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch

from rocktop_ray.chunks import FRAME
from rocktop_ray.live.content import ContentState, ContentWindow
from rocktop_ray.live.layout import LiveLayout
from rocktop_ray.live.melody import (
    DEFAULT_HZ,
    Melody,
    MelodyListener,
    MelodySource,
    MelodyState,
    MelodyWindow,
    begin_melody,
    sung,
)
from rocktop_ray.models.listener import ListenerState, ListenerStream, PitchStream
from rocktop_ray.protocols import Array, ContentEncoder, PitchExtractor
from rocktop_ray.settings import ConvertSettings


@dataclass(frozen=True)
class EarsState:
    """What is remembered of the take's content and melody."""

    content: ContentState | ListenerState
    melody: MelodyState


class Ears(Protocol):
    """What the converter needs."""

    lag: int
    """Frames by which the newest that is sure is behind the audio."""
    needs: int
    """Samples at 16 kHz before the new ones that ``step`` must be given."""
    warming: int
    """Frames to hear, after a gap in the audio, until what comes out is worth hearing."""
    parts_exact: dict[str, bool]
    """Whether ``content`` and ``pitch`` of every frame are heard once, as they would be in a whole; else over windows.
    """
    same: tuple[object, ...]
    """Ears of which this is equal can go on from each other's states."""

    def begin(self) -> EarsState:
        """Nothing heard yet."""
        ...

    def step(
        self, states: Sequence[EarsState], audio: Array, settings: Sequence[ConvertSettings]
    ) -> tuple[list[EarsState], list[Array], list[Melody]]:
        """Audio ``[streams, needs + hop * 160]`` at 16 kHz -> units ``[frames, dim]`` at 100/s and melodies.

        The frames are those of a hop, ``lag`` earlier; more may follow that are not sure yet.
        """
        ...


class WindowEars:
    """Any encoder, and a source of F0 that ``layout`` leaves time for; a voice may need none."""

    def __init__(self, encoder: ContentEncoder, pitch: PitchExtractor | PitchStream | None, layout: LiveLayout) -> None:
        self._layout = layout
        self._content = ContentWindow(encoder, layout.left // 2, layout.ahead // 2)
        self._melody: MelodySource | None = None
        if isinstance(pitch, PitchStream):
            self._melody = MelodyListener(pitch, layout.ahead)
        elif pitch is not None:
            self._melody = MelodyWindow(pitch, layout.pitch_left)
        self._before = max(self._content.needs, 0 if self._melody is None else self._melody.needs)
        self.lag, self.needs, self.warming = layout.ahead, self._before + layout.ahead * FRAME, 0
        self.parts_exact = {"content": False, "pitch": isinstance(pitch, PitchStream)}
        self.same: tuple[object, ...] = (encoder, pitch, layout)

    def begin(self) -> EarsState:
        """Nothing heard yet."""
        melody = begin_melody() if self._melody is None else self._melody.begin()
        return EarsState(self._content.begin(), melody)

    def step(
        self, states: Sequence[EarsState], audio: Array, settings: Sequence[ConvertSettings]
    ) -> tuple[list[EarsState], list[Array], list[Melody]]:
        """See ``Ears``."""
        layout, fresh = self._layout, self._layout.hop
        heard = audio[:, self._before - self._content.needs :]
        contents, units = self._content.step([state.content for state in states], heard, fresh // 2)
        if self._melody is None:
            silent = np.zeros(fresh + layout.ahead, np.float32)
            melodies = [Melody(silent, silent + np.float32(DEFAULT_HZ))] * len(states)
            after = [state.melody for state in states]
        else:
            window = audio[:, self._before - self._melody.needs :]
            heard_in, found = self._melody.step([state.melody for state in states], window, fresh)
            after, melodies = _sung(heard_in, found, fresh, settings)
        kept = [EarsState(content, melody) for content, melody in zip(contents, after, strict=True)]
        return kept, [np.repeat(each, 2, axis=0) for each in units], melodies


class ListenerEars:
    """The listener: each frame is heard once, as it will stay."""

    def __init__(self, listener: ListenerStream) -> None:
        self._listener = listener
        self.lag, self.needs, self.warming = listener.lag, 0, 20
        self.parts_exact = {"content": True, "pitch": True}
        self.same: tuple[object, ...] = (listener,)

    def begin(self) -> EarsState:
        """Nothing heard yet."""
        return EarsState(self._listener.begin(), begin_melody())

    def step(
        self, states: Sequence[EarsState], audio: Array, settings: Sequence[ConvertSettings]
    ) -> tuple[list[EarsState], list[Array], list[Melody]]:
        """See ``Ears``."""
        before = [state.content for state in states if isinstance(state.content, ListenerState)]
        contents, units, f0 = self._listener.step(before, torch.from_numpy(audio))
        after, melodies = _sung([state.melody for state in states], list(f0.numpy()), f0.shape[1], settings)
        kept = [EarsState(content, melody) for content, melody in zip(contents, after, strict=True)]
        return kept, list(units.numpy()), melodies


def _sung(
    states: Sequence[MelodyState], found: Sequence[Array], fresh: int, settings: Sequence[ConvertSettings]
) -> tuple[list[MelodyState], list[Melody]]:
    """F0 as heard of each stream -> F0 to sing."""
    made = [sung(state, f0, fresh, wanted) for state, f0, wanted in zip(states, found, settings, strict=True)]
    return [state for state, _ in made], [melody for _, melody in made]
