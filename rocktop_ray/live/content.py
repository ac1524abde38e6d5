"""Content units of a stream, from encoders that see a whole take offline.

Whisper and HuBERT keep what they have computed. Any other encoder runs over a window of the audio's last seconds.
Either way units are made with a stated look-ahead, and those beyond it, which are made without what follows, are made
again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from rocktop_ray.features.content.hubert import HubertEncoder
from rocktop_ray.features.content.whisper import WhisperEncoder
from rocktop_ray.models.hubert_stream import HubertState, HubertStream
from rocktop_ray.models.whisper_stream import UNIT, WhisperState, WhisperStream
from rocktop_ray.protocols import Array, ContentEncoder

_FORGETS = 3000.0
"""Units (60 s) that the mean and variance of a stream go back."""
_TRUSTED = 150.0
"""Units (3 s) after which a stream's own mean and variance are taken in place of its window's."""


@dataclass(frozen=True)
class NormState:
    """Mean and variance of the units so far, ``[dim]`` in float64."""

    count: float
    mean: np.ndarray
    variance: np.ndarray


@dataclass(frozen=True)
class ContentState:
    """What an encoder remembers, where it is one that does."""

    encoder: WhisperState | HubertState | None = None
    norm: NormState | None = None


class ContentWindow:
    """An encoder over windows of a stream. Units that it normalises over a take are normalised over the stream.

    Args:
        encoder: any content encoder.
        left: units of context before the new ones.
        ahead: units beyond the final ones.
    """

    def __init__(self, encoder: ContentEncoder, left: int, ahead: int) -> None:
        self._encoder, self._left, self._ahead = encoder, left, ahead
        self._stream: WhisperStream | HubertStream | None = None
        if isinstance(encoder, WhisperEncoder):
            self._stream = encoder.stream(left)
        elif isinstance(encoder, HubertEncoder):
            self._stream = encoder.stream(left, ahead)
        self.needs = left * UNIT if self._stream is None else self._stream.needs
        """Samples at 16 kHz before the new ones that ``step`` must be given."""

    def begin(self) -> ContentState:
        """Nothing heard yet."""
        encoder = None if self._stream is None else self._stream.begin()
        if not isinstance(self._encoder, WhisperEncoder):
            return ContentState(encoder)
        dim = self._encoder.spec.dim
        return ContentState(encoder, NormState(0.0, np.zeros(dim), np.zeros(dim)))

    def step(self, states: Sequence[object], audio: Array, fresh: int) -> tuple[list[ContentState], list[Array]]:
        """Audio ``[streams, needs + (fresh + ahead) * 320]`` at 16 kHz -> units ``[fresh + ahead, dim]`` of each.

        An encoder may come out a unit short; its last one then stands twice.
        """
        known, ahead = [state for state in states if isinstance(state, ContentState)], self._ahead
        if isinstance(self._stream, WhisperStream):
            heard = [state.encoder for state in known if isinstance(state.encoder, WhisperState)]
            after, features = self._stream.step_many(heard, torch.from_numpy(audio), fresh, ahead)
            made = [
                self._normalised(encoder, state.norm, rows, fresh)
                for encoder, state, rows in zip(after, known, features.numpy(), strict=True)
            ]
        elif isinstance(self._stream, HubertStream):
            under_way = [state.encoder for state in known if isinstance(state.encoder, HubertState)]
            kept, units = self._stream.step_many(under_way, torch.from_numpy(audio), fresh, ahead)
            made = [(ContentState(encoder), rows) for encoder, rows in zip(kept, units.numpy(), strict=True)]
        else:
            made = [self._alone(state, each, fresh, fresh + ahead) for state, each in zip(known, audio, strict=True)]
        return [state for state, _ in made], [units for _, units in made]

    def _alone(self, state: ContentState, audio: Array, fresh: int, count: int) -> tuple[ContentState, Array]:
        """One window, through an encoder that remembers nothing."""
        if isinstance(self._encoder, WhisperEncoder):
            seen = self._encoder.features(audio)[self._left : self._left + count]
            return self._normalised(None, state.norm, seen, fresh)
        units = self._encoder.encode(audio)
        missing = max(0, self._left + count - len(units))
        return state, np.concatenate([units, np.repeat(units[-1:], missing, axis=0)])[self._left : self._left + count]

    def _normalised(
        self, encoder: WhisperState | None, norm: NormState | None, features: Array, fresh: int
    ) -> tuple[ContentState, Array]:
        """Features ``[fresh + ahead, dim]`` against the stream's mean and variance; early on also those ahead count."""
        assert norm is not None
        after = _heard(norm, features[:fresh])
        used = after if after.count > _TRUSTED else _heard(norm, features)
        units = ((features - used.mean) / np.maximum(np.sqrt(used.variance), 1e-5)).astype(np.float32)
        return ContentState(encoder, after), units


def _heard(state: NormState, units: Array) -> NormState:
    """Mean and variance with ``units`` ``[n, dim]``, the past counting for at most ``_FORGETS``."""
    before, fresh = min(state.count, _FORGETS), len(units)
    total = before + fresh
    mean, variance = units.mean(0, dtype=np.float64), units.var(0, dtype=np.float64)
    apart = mean - state.mean
    joint = state.mean + apart * fresh / total
    spread = (before * state.variance + fresh * variance) / total + apart**2 * before * fresh / total**2
    return NormState(total, joint, spread)
