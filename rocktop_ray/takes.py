"""Converting files, to a file or to a receiver: decode, convert, bring to level, encode, in bounded memory."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Event
from typing import IO, Any

import numpy as np

from rocktop_ray.audio.decode import iter_take, probe
from rocktop_ray.audio.encode import Writer, open_writer
from rocktop_ray.audio.formats import Output, check_output, format_for
from rocktop_ray.audio.info import DEFAULT_LIMITS, AudioInfo, AudioLimits
from rocktop_ray.audio.level import CEILING_DBFS, from_db, normalising_gain, peak, to_db
from rocktop_ray.audio.limiter import Limiter
from rocktop_ray.audio.resample import StreamResampler, resampled_length
from rocktop_ray.audio.stream_encode import check_streamable, open_stream
from rocktop_ray.convert import Converted, Converter, Progress
from rocktop_ray.errors import storage_errors
from rocktop_ray.protocols import TAKE_RATE, Array
from rocktop_ray.settings import ConvertSettings

_BLOCK = 1 << 18
_SPARE = 64
"""Samples by which lengths rounded at 48 kHz may differ, at most."""


@dataclass(frozen=True)
class FileConversion:
    """What was done.

    Attributes:
        source: facts of the file read.
        seconds: length of the take.
        f0_source, f0: melodies of the take and of the result, Hz at 100/s.
        key: semitones between them.
        gain_db: applied to the whole result; of a stream the limiter's deepest.
        peak_dbfs: of the file written, before dither and lossy coding.
        stages: seconds spent per stage, ``decode`` and ``encode`` included.
    """

    source: AudioInfo
    seconds: float
    f0_source: Array
    f0: Array
    key: float
    gain_db: float
    peak_dbfs: float
    stages: dict[str, float]

    @property
    def real_time_factor(self) -> float:
        """Seconds of work per second of the take."""
        return sum(self.stages.values()) / self.seconds

    def as_dict(self) -> dict[str, Any]:
        """All but the melodies, as plain data."""
        return {
            "source_format": {"rate": self.source.rate, "channels": self.source.channels, "codec": self.source.codec},
            "seconds": self.seconds,
            "key": self.key,
            "gain_db": self.gain_db,
            "peak_dbfs": self.peak_dbfs,
            "stages": self.stages,
            "real_time_factor": self.real_time_factor,
        }


def convert_file(
    converter: Converter,
    source: Path,
    target: Path,
    settings: ConvertSettings | None = None,
    output: Output | None = None,
    *,
    normalise: bool = False,
    melody: Array | None = None,
    limits: AudioLimits = DEFAULT_LIMITS,
    on_progress: Callable[[Progress], None] | None = None,
    cancel: Event | None = None,
) -> FileConversion:
    """Convert one file. ``target`` appears only when it is complete.

    The result has the source's length: exactly its samples where the rates agree, else that time rounded to a sample.

    Args:
        output: from ``check_output``; None is what the target's ending says, at 48 kHz.
        normalise: bring the peak to -1 dBFS also when it is lower.
        melody: see ``Converter.convert``.

    Raises AudioError, AudioFormatError, SettingsError, StorageError, CancelledError.
    """
    output = output or check_output(format_for(target), TAKE_RATE)
    info = probe(source, limits)
    tally = _Tally()
    with storage_errors("the temporary folder"), tempfile.TemporaryFile(prefix="rocktop-") as spool:
        largest = 0.0
        blocks = tally.decoding(iter_take(source, rate=TAKE_RATE, limits=limits))
        for part in converter.stream(blocks, settings, melody=melody, on_progress=on_progress, cancel=cancel):
            tally.add(part)
            spool.write(np.ascontiguousarray(part.audio).data)
            largest = max(largest, peak(part.audio))
        with tally.stage("encode"):
            if output.rate != TAKE_RATE:  # the filter moves the peaks, and the file's are what counts
                largest = max(peak(block) for block in _at_rate(_spooled(spool), output.rate))
            gain = _gain(largest, normalise)
            frames = _frames(info, tally.samples, output.rate)
            with open_writer(target, output.format.name, output.rate, output.bitrate) as writer:
                for block in _fitted(_at_rate(_spooled(spool), output.rate), frames):
                    writer.write(block * np.float32(gain))
    return tally.result(info, to_db(gain), to_db(largest * gain))


def convert_stream(
    converter: Converter,
    source: Path,
    send: Callable[[bytes], None],
    settings: ConvertSettings | None = None,
    output: Output | None = None,
    *,
    melody: Array | None = None,
    limits: AudioLimits = DEFAULT_LIMITS,
    on_progress: Callable[[Progress], None] | None = None,
    cancel: Event | None = None,
) -> FileConversion:
    """Convert one file and send the encoded result in pieces while it is made, in bounded memory.

    The samples are those of ``convert_file`` where those stay below -1 dBFS. Elsewhere a limiter holds the peaks down:
    the gain of the whole take cannot be known yet. ``gain_db`` of the result is then its deepest reduction.

    Args:
        send: called with each piece in order, in the calling thread; may block. What it raises ends the conversion.
        output: from ``check_output``; None is FLAC at 48 kHz. ``m4a`` cannot be sent.

    Raises as ``convert_file``; bytes that were sent before an error are then the beginning of a result, no more.
    """
    output = output or check_output("flac", TAKE_RATE)
    check_streamable(output)
    info = probe(source, limits)
    promised = None if info.frames is None else resampled_length(info.frames, info.rate, output.rate)
    tally = _Tally()
    with open_stream(tally.unhurried(send), output, promised) as writer:
        outlet = _Outlet(writer, output.rate)
        blocks = tally.decoding(iter_take(source, rate=TAKE_RATE, limits=limits))
        for part in converter.stream(blocks, settings, melody=melody, on_progress=on_progress, cancel=cancel):
            tally.add(part)
            with tally.stage("encode"):
                outlet.push(part.audio)
        with tally.stage("encode"):
            outlet.finish(max(promised or 0, _frames(info, tally.samples, output.rate)))
    return tally.result(info, -outlet.limiter.deepest_db, to_db(outlet.largest))


class _Tally:
    """What is known of a conversion only when it is done."""

    def __init__(self) -> None:
        self.samples = 0
        """At 48 kHz."""
        self._f0_source: list[Array] = []
        self._f0: list[Array] = []
        self._key = 0.0
        self._stages: dict[str, float] = {}
        self._away = 0.0

    def add(self, part: Converted) -> None:
        """The next stretch."""
        self.samples += len(part.audio)
        self._f0_source.append(part.f0_source)
        self._f0.append(part.f0)
        self._key = part.key
        for stage, spent in part.seconds.items():
            self._stages[stage] = self._stages.get(stage, 0.0) + spent

    def decoding(self, blocks: Iterator[Array]) -> Iterator[Array]:
        """The same blocks; their making is counted."""
        while True:
            with self.stage("decode"):
                block = next(blocks, None)
            if block is None:
                return
            yield block

    def unhurried(self, send: Callable[[bytes], None]) -> Callable[[bytes], None]:
        """The same; its time is the receiver's and counts for no stage."""

        def timed(data: bytes) -> None:
            began = time.perf_counter()
            send(data)
            self._away += time.perf_counter() - began

        return timed

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Count the time of the block."""
        began, away = time.perf_counter(), self._away
        yield
        spent = time.perf_counter() - began - (self._away - away)
        self._stages[name] = self._stages.get(name, 0.0) + spent

    def result(self, info: AudioInfo, gain_db: float, peak_dbfs: float) -> FileConversion:
        """All of it."""
        f0_source, f0 = np.concatenate(self._f0_source), np.concatenate(self._f0)
        return FileConversion(
            info, self.samples / TAKE_RATE, f0_source, f0, self._key, gain_db, peak_dbfs, self._stages
        )


class _Outlet:
    """The end of a stream: 48 kHz to the output's rate, the exact length, the ceiling."""

    def __init__(self, writer: Writer, rate: int) -> None:
        self.limiter = Limiter(rate, CEILING_DBFS)
        self.largest = 0.0
        self._writer = writer
        self._resampler = StreamResampler(TAKE_RATE, rate)
        self._waiting: Array = np.zeros(0, np.float32)
        self._given = 0

    def push(self, audio: Array) -> None:
        """Appends ``[samples]`` at 48 kHz; the last few samples stay behind, so that the end can still be cut."""
        waiting = np.concatenate([self._waiting, self._resampler.push(audio)])
        ready = max(len(waiting) - _SPARE, 0)
        self._waiting = waiting[ready:].copy()
        self._give(waiting[:ready])

    def finish(self, frames: int) -> None:
        """Ends at ``frames`` samples in all."""
        rest = np.concatenate([self._waiting, self._resampler.finish()])
        for block in _fitted(iter([rest]), frames - self._given):
            self._give(block)
        self._write(self.limiter.finish())

    def _give(self, block: Array) -> None:
        self._given += len(block)
        self._write(self.limiter.push(block))

    def _write(self, block: Array) -> None:
        self.largest = max(self.largest, peak(block))
        self._writer.write(block)


def _frames(info: AudioInfo, samples: int, rate: int) -> int:
    """Samples that ``samples`` at 48 kHz of a source are at ``rate``.

    Going through 48 kHz rounds twice; what the file itself says is exact, unless it is only an estimate.
    """
    if info.frames is not None and abs(resampled_length(info.frames, info.rate, TAKE_RATE) - samples) <= 1:
        return resampled_length(info.frames, info.rate, rate)
    return resampled_length(samples, TAKE_RATE, rate)


def _gain(largest: float, normalise: bool) -> float:
    """Down to the ceiling if above it; up to it only when asked."""
    return normalising_gain(largest, CEILING_DBFS) if normalise or largest > from_db(CEILING_DBFS) else 1.0


def _spooled(spool: IO[bytes]) -> Iterator[Array]:
    spool.seek(0)
    while data := spool.read(_BLOCK * 4):
        yield np.frombuffer(data, np.float32)


def _at_rate(blocks: Iterator[Array], rate: int) -> Iterator[Array]:
    resampler = StreamResampler(TAKE_RATE, rate)
    for block in blocks:
        yield resampler.push(block)
    yield resampler.finish()


def _fitted(blocks: Iterator[Array], samples: int) -> Iterator[Array]:
    """The blocks cut or filled with zeros to ``samples`` in all: lengths rounded at 48 kHz differ by a few samples."""
    for block in blocks:
        if len(block) > samples:
            block = block[:samples]
        samples -= len(block)
        yield block
    if samples:
        yield np.zeros(samples, np.float32)
