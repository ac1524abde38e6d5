"""Cutting a long recording at its pauses, with the parameters of RVC's preprocessing (openvpi's audio slicer).

The level is the RMS of frames; a run of frames below the threshold is a pause. A pause is cut where it is quietest:
once if it is short, at both sides if it is longer than ``max_sil_kept``, so that no slice begins or ends with more
silence than that, and what lies between is dropped.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from rocktop_ray.audio.level import from_db
from rocktop_ray.errors import SettingsError
from rocktop_ray.protocols import Array


@dataclass(frozen=True)
class SliceSettings:
    """Times in milliseconds."""

    threshold_db: float = -42.0
    """RMS in dBFS below which a frame is silent."""
    min_length: int = 1500
    """A pause is cut only if it ends at least this long after its slice began."""
    min_interval: int = 400
    """The shortest pause at which the recording is cut."""
    hop: int = 15
    """Length of a frame's step."""
    max_sil_kept: int = 500
    """Most silence that stays at each end of a slice."""

    def __post_init__(self) -> None:
        if not self.min_length >= self.min_interval >= self.hop >= 1 or self.max_sil_kept < self.hop:
            raise SettingsError(
                "the slicer needs min_length >= min_interval >= hop >= 1 ms and max_sil_kept >= hop; got "
                f"{self.min_length}, {self.min_interval}, {self.hop}, {self.max_sil_kept}"
            )


def slice_spans(audio: Array, rate: int, settings: SliceSettings | None = None) -> list[tuple[int, int]]:
    """Where the slices of ``[n]`` or ``[n, channels]`` begin and end, in samples, in order and apart.

    A recording not longer than ``min_length`` is one slice; one that is silent throughout has none.
    """
    chosen = settings or SliceSettings()
    mono = audio.mean(axis=1) if audio.ndim > 1 else audio
    hop = max(1, round(rate * chosen.hop / 1000))
    window = min(round(rate * chosen.min_interval / 1000), 4 * hop)
    return spans_of_levels(_frame_rms(mono, window, hop), len(mono), rate, chosen)


def spans_of_levels(
    level: npt.NDArray[np.float64], samples: int, rate: int, settings: SliceSettings
) -> list[tuple[int, int]]:
    """``slice_spans`` of a recording of which only its levels are held.

    Args:
        level: RMS of 60 ms (not more than ``min_interval``) around every ``hop``: ``[samples // hop + 1]``.
        samples: length of the recording.
        rate: Hz.
        settings: as for slice_spans.
    """
    hop = max(1, round(rate * settings.hop / 1000))
    if not samples:
        return []
    if samples <= rate * settings.min_length / 1000:
        return [(0, samples)]
    silent = level < from_db(settings.threshold_db)
    if silent.all():
        return []
    cuts = _cuts(level, silent, settings, round(rate * settings.min_interval / 1000 / hop))
    begins = [0, *(resume * hop for _, resume in cuts)]
    ends = [*(stop * hop for stop, _ in cuts), samples]
    return [(begin, min(end, samples)) for begin, end in zip(begins, ends, strict=True) if begin < min(end, samples)]


def _frame_rms(mono: Array, window: int, hop: int) -> npt.NDArray[np.float64]:
    """RMS of windows centred on every ``hop`` samples, zeros outside: ``[n // hop + 1]``."""
    half = window // 2
    sums = np.concatenate([[0.0], np.cumsum(np.square(mono, dtype=np.float64))])
    centres = np.arange(0, len(mono) + 1, hop)
    start, stop = np.maximum(centres - half, 0), np.minimum(centres - half + window, len(mono))
    return np.sqrt(np.maximum(sums[stop] - sums[np.minimum(start, stop)], 0.0) / window)


def _cuts(
    level: npt.NDArray[np.float64], silent: npt.NDArray[np.bool_], chosen: SliceSettings, interval: int
) -> list[tuple[int, int]]:
    """For each pause to cut: the frame where a slice ends and the one where the next begins."""
    kept = max(1, round(chosen.max_sil_kept / chosen.hop))
    shortest = round(chosen.min_length / chosen.hop)
    edges = np.flatnonzero(np.diff(np.concatenate([[False], silent, [False]]).astype(np.int8)))
    cuts: list[tuple[int, int]] = []
    begin = 0
    # ``end`` is the first frame after a pause; it is loud, so that it is never the quietest.
    for first, end in zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True):
        length = end - first
        if first == 0:
            # What a leading pause has more than the kept silence goes.
            if length > kept:
                begin = _quietest(level, end - kept, end)
                cuts.append((0, begin))
        elif end == len(level):
            if length >= interval:
                cuts.append((_quietest(level, first, first + kept), len(level)))
        elif length >= interval and end - begin >= shortest:
            if length <= kept:
                stop = resume = _quietest(level, first, end)
            else:
                stop = _quietest(level, first, first + kept)
                resume = max(stop, _quietest(level, end - kept, end))
            cuts.append((stop, resume))
            begin = resume
    return cuts


def _quietest(level: npt.NDArray[np.float64], first: int, last: int) -> int:
    """The quietest frame from ``first`` to ``last``, both included."""
    return first + int(np.argmin(level[first : last + 1]))
