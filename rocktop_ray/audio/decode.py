"""Reading recordings: any container and codec that libsndfile or FFmpeg decode, block by block, within limits.

What is refused: files that are empty, cut off or damaged, without samples, with NaN or infinite samples or samples far
above full scale, and those over a limit. A cut file is refused, not shortened: a half take that converts without
a word is found only when it is too late. Bare streams without a length in their header (ADTS AAC, MP3 without a Xing
frame) cannot be checked for that.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Protocol

import numpy as np
import soundfile

from rocktop_ray.audio.info import DEFAULT_LIMITS, AudioInfo, AudioLimits
from rocktop_ray.audio.integrity import ogg_is_cut
from rocktop_ray.audio.libav_reader import LibavReader
from rocktop_ray.audio.mono import MonoMeter, to_mono
from rocktop_ray.audio.resample import StreamResampler
from rocktop_ray.audio.sndfile_reader import SndfileReader, is_sndfile
from rocktop_ray.audio.source import AudioSource, Source, open_source
from rocktop_ray.errors import AudioError, SettingsError
from rocktop_ray.protocols import TAKE_RATE, Array

LOUDEST_SAMPLE = 1000.0
"""Samples above this (+60 dBFS) are taken for another scale, e.g. integers stored as floats, and refused."""


class _Backend(Protocol):
    info: AudioInfo
    promised_seconds: float | None
    tolerance_seconds: float

    def blocks(self) -> Iterator[Array]: ...

    def close(self) -> None: ...


class Reader:
    """An open recording: iterate over it once for float32 blocks ``[n, channels]``, full scale ±1, at ``info.rate``."""

    def __init__(self, backend: _Backend, name: str, limits: AudioLimits) -> None:
        self.info = backend.info
        self.name = name
        self._backend = backend
        self._limits = limits

    def __enter__(self) -> Reader:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._backend.close()

    def __iter__(self) -> Iterator[Array]:
        rate, done = self.info.rate, 0
        blocks = self._backend.blocks()
        while True:
            try:
                block = next(blocks, None)
            except soundfile.LibsndfileError as error:
                raise AudioError(f"{self.name} is damaged after {done / rate:.2f} s; export it again") from error
            except OSError as error:
                raise AudioError(f"{self.name} cannot be read after {done / rate:.2f} s: {error.strerror}") from error
            if block is None:
                break
            self._check_samples(block, done)
            done += len(block)
            self._limits.check_seconds(self.name, done / rate)
            yield block
        if done == 0:
            raise AudioError(f"{self.name} holds no audio samples")
        promised = self._backend.promised_seconds
        if promised is not None and done / rate < promised - self._backend.tolerance_seconds:
            raise AudioError(
                f"{self.name} is cut off: its header promises {promised:.2f} s, {done / rate:.2f} s can be read; "
                "copy or export it again"
            )

    def _check_samples(self, block: Array, start: int) -> None:
        peak = np.maximum(block.max(initial=0.0), -block.min(initial=0.0))
        if peak <= LOUDEST_SAMPLE:  # False for NaN
            return
        bad = ~np.isfinite(block)
        if bad.any():
            at = (start + int(np.argmax(bad.any(axis=1)))) / self.info.rate
            raise AudioError(f"{self.name} has samples that are not numbers (NaN or infinite), first at {at:.3f} s")
        raise AudioError(f"{self.name} has samples up to {peak:g}, far above full scale (1.0); scale it and try again")


def _backend(source: Source, stream: int | None) -> _Backend:
    """libsndfile where it can, else FFmpeg."""
    if ogg_is_cut(source.file, source.size):
        raise AudioError(f"{source.name} is cut off inside its last page; copy or export it again")
    if not is_sndfile(source.file):
        return LibavReader(source, stream)
    try:
        reader = SndfileReader(source)
    except (soundfile.LibsndfileError, TypeError, ValueError):
        return LibavReader(source, stream)
    if reader.info.frames is None:  # libsndfile seeks in what has no length, and fails
        reader.close()
        return LibavReader(source, stream)
    if stream not in (None, 0):
        reader.close()
        raise SettingsError(f"{source.name} has one audio stream, number 0; there is no {stream}")
    return reader


@contextmanager
def open_reader(
    source: AudioSource, limits: AudioLimits = DEFAULT_LIMITS, *, stream: int | None = None
) -> Iterator[Reader]:
    """Opens a recording (path, bytes or binary file object) for reading in bounded memory.

    Args:
        source: what to read; videos are accepted, their pictures are passed over.
        limits: what is accepted.
        stream: which audio stream of a file with several, from 0; default the first.

    Raises:
        AudioError: missing, not audio, cut off, damaged, empty or non-finite (some only while reading).
        AudioLimitError: over a limit.
        StorageError: no permission to read.
        SettingsError: there is no such stream.
    """
    with open_source(source, limits) as opened:
        backend = _backend(opened, stream)
        with Reader(backend, opened.name, limits) as reader:
            limits.check_info(opened.name, reader.info)
            yield reader


def probe(source: AudioSource, limits: AudioLimits = DEFAULT_LIMITS, *, stream: int | None = None) -> AudioInfo:
    """The facts of a recording from its headers; no more than its first frame is decoded. Raises as open_reader."""
    with open_reader(source, limits, stream=stream) as reader:
        return reader.info


def read_take(
    source: AudioSource, *, rate: int = TAKE_RATE, limits: AudioLimits = DEFAULT_LIMITS, stream: int | None = None
) -> Array:
    """A whole recording as mono float32 ``[samples]`` at ``rate`` (soxr VHQ); for hours use iter_take.

    Channels become one by the rule of ``mono.MonoMeter``. Raises as open_reader.
    """
    meter = None
    with open_reader(source, limits, stream=stream) as reader:
        meter = MonoMeter(reader.info.channels)
        resampler = StreamResampler(reader.info.rate, rate)
        parts = []
        for block in reader:
            meter.add(block)
            parts.append(resampler.push(to_mono(block, None)))
        parts.append(resampler.finish())
    if meter.channel is None:
        return np.concatenate(parts)
    del parts
    return np.concatenate(list(_mono_blocks(source, rate, limits, stream, meter.channel)))


def iter_take(
    source: AudioSource, *, rate: int = TAKE_RATE, limits: AudioLimits = DEFAULT_LIMITS, stream: int | None = None
) -> Iterator[Array]:
    """The same samples as read_take, in blocks and in bounded memory. Several channels are read twice."""
    with open_reader(source, limits, stream=stream) as reader:
        meter = MonoMeter(reader.info.channels)
        if reader.info.channels > 1:
            for block in reader:
                meter.add(block)
    yield from _mono_blocks(source, rate, limits, stream, meter.channel)


def _mono_blocks(
    source: AudioSource, rate: int, limits: AudioLimits, stream: int | None, channel: int | None
) -> Iterator[Array]:
    with open_reader(source, limits, stream=stream) as reader:
        resampler = StreamResampler(reader.info.rate, rate)
        for block in reader:
            yield resampler.push(to_mono(block, channel))
        yield resampler.finish()
