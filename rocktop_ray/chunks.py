"""Where a long take is cut, so that memory stays bounded and no cut is heard.

Two levels. *Sections* (minutes) bound what is held at all: each is filtered, pitched and levelled on its own, with real
audio of its neighbours as context. *Chunks* (about 38 s) inside a section are RVC's own: the same places, the same one
second of padding, so that a take of up to one section is converted as the reference does.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from rocktop_ray.audio.resample import StreamResampler
from rocktop_ray.protocols import ENCODER_RATE, FRAME_RATE, TAKE_RATE, Array

FRAME = ENCODER_RATE // FRAME_RATE
"""Samples at 16 kHz of one 10 ms frame; all cuts fall on frames."""
PAD = ENCODER_RATE
"""Samples at 16 kHz of context on both sides of a chunk (RVC's x_pad of 1 s)."""

_QUERY = 6 * ENCODER_RATE
_CENTER = 38 * ENCODER_RATE
_MAX = 41 * ENCODER_RATE
_SECTION = 300 * ENCODER_RATE
_CONTEXT = 2 * ENCODER_RATE
_RESAMPLE_BLOCK = 10 * TAKE_RATE


@dataclass(frozen=True)
class Section:
    """A stretch of the take at 16 kHz, with up to two seconds of its neighbours."""

    audio: Array
    """``[before + samples + after]``"""
    before: int
    after: int
    start: int
    """Position of the first own sample in the take; a multiple of 160."""
    take_samples: int
    """Own length at 48 kHz."""
    last: bool

    @property
    def samples(self) -> int:
        """Own samples at 16 kHz."""
        return len(self.audio) - self.before - self.after


@dataclass(frozen=True)
class Chunk:
    """What goes through the networks at once, in samples of the padded section."""

    start: int
    stop: int
    frames: int
    """Frames to render, beginning ``PAD // FRAME`` frames after ``start``."""


def quietest(audio: npt.NDArray[np.floating], low: int, high: int) -> int:
    """The position in ``low .. high`` around which 10 ms of audio have the least sum of magnitudes (the first such)."""
    window = np.abs(np.pad(audio, FRAME // 2, mode="reflect")[low : high + FRAME - 1])
    return low + int(np.argmin(np.convolve(window, np.ones(FRAME), mode="valid")))


def plan_chunks(audio: npt.NDArray[np.floating], padded: int, frames: int) -> list[Chunk]:
    """Chunks of a section, as RVC cuts: near every 38 s at the quietest place within 6 s, only above 41 s.

    Args:
        audio: the section's own filtered audio ``[samples]``.
        padded: length of the padded section.
        frames: frames to render in all.
    """
    cuts = [0]
    if len(audio) + FRAME > _MAX:
        for centre in range(_CENTER, len(audio), _CENTER):
            cut = quietest(audio, centre - _QUERY, min(centre + _QUERY, len(audio)))
            cuts.append(cut // FRAME * FRAME)
    ends = cuts[1:]
    chunks = [
        Chunk(start, end + 2 * PAD + FRAME, (end - start) // FRAME) for start, end in zip(cuts, ends, strict=False)
    ]
    chunks.append(Chunk(cuts[-1], padded, frames - cuts[-1] // FRAME))
    return chunks


def split_sections(blocks: Iterable[Array], *, section: int = _SECTION) -> Iterator[Section]:
    """Blocks ``[samples]`` of a take at 48 kHz -> its sections at 16 kHz, holding one section at a time.

    Args:
        blocks: consecutive blocks of any sizes; the result does not depend on the sizes.
        section: the longest section, in samples at 16 kHz; longer takes are cut at the quietest place of its last 12 s.
    """
    source = _Resampled(blocks)
    start = before = 0
    while True:
        source.fill(before + section + _CONTEXT)
        own = len(source.held) - before
        last = source.finished and own <= section
        if not last:
            low, high = before + section - 2 * _QUERY, before + section
            own = (quietest(source.held, low, high) - before) // FRAME * FRAME
        after = min(_CONTEXT, len(source.held) - before - own)
        take_samples = source.take_samples - start * 3 if last else own * 3
        yield Section(source.held[: before + own + after], before, after, start, take_samples, last)
        if last:
            return
        start += own
        drop = max(before + own - _CONTEXT, 0)
        before = before + own - drop
        source.drop(drop)


class _Resampled:
    """A take at 48 kHz, pulled in as needed and held at 16 kHz."""

    def __init__(self, blocks: Iterable[Array]) -> None:
        self.held: Array = np.zeros(0, np.float32)
        self.take_samples = 0
        self.finished = False
        self._blocks = _even(blocks, _RESAMPLE_BLOCK)
        self._resampler = StreamResampler(TAKE_RATE, ENCODER_RATE)

    def fill(self, samples: int) -> None:
        """Pull until ``samples`` are held or the take ends."""
        parts, held = [self.held], len(self.held)
        while held < samples and not self.finished:
            block = next(self._blocks, None)
            if block is None:
                self.finished = True
                part = self._resampler.finish()
            else:
                self.take_samples += len(block)
                part = self._resampler.push(block)
            parts.append(part)
            held += len(part)
        self.held = np.concatenate(parts)

    def drop(self, samples: int) -> None:
        """Forget the first ``samples`` held."""
        self.held = self.held[samples:]


def _even(blocks: Iterable[Array], size: int) -> Iterator[Array]:
    """The same samples in blocks of ``size`` (the last shorter)."""
    parts: list[Array] = []
    held = 0
    for block in blocks:
        offset = 0
        while offset < len(block):
            part = block[offset : offset + size - held]
            parts.append(part)
            held += len(part)
            offset += len(part)
            if held == size:
                yield np.concatenate(parts)
                parts, held = [], 0
    if held:
        yield np.concatenate(parts)
