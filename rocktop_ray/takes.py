"""Converting files: decode, convert, bring to level, encode, all in bounded memory, nothing half-written."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from threading import Event
from typing import IO, Any

import numpy as np

from rocktop_ray.audio.decode import iter_take, probe
from rocktop_ray.audio.encode import open_writer
from rocktop_ray.audio.formats import Output, check_output, format_for
from rocktop_ray.audio.info import DEFAULT_LIMITS, AudioInfo, AudioLimits
from rocktop_ray.audio.level import from_db, normalising_gain, peak, to_db
from rocktop_ray.audio.resample import StreamResampler, resampled_length
from rocktop_ray.convert import Converter, Progress
from rocktop_ray.errors import storage_errors
from rocktop_ray.protocols import TAKE_RATE, Array
from rocktop_ray.settings import ConvertSettings

CEILING_DBFS = -1.0
"""Converted takes never peak above this: louder ones are turned down as a whole."""

_BLOCK = 1 << 18


@dataclass(frozen=True)
class FileConversion:
    """What was done.

    Attributes:
        source: facts of the file read.
        seconds: length of the take.
        f0_source, f0: melodies of the take and of the result, Hz at 100/s.
        key: semitones between them.
        gain_db: applied to the whole result.
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
    stages: dict[str, float] = {}
    f0_source, f0, key = [], [], 0.0
    with storage_errors("the temporary folder"), tempfile.TemporaryFile(prefix="rocktop-") as spool:
        samples, largest = 0, 0.0
        blocks = iter_take(source, rate=TAKE_RATE, limits=limits)
        for part in converter.stream(blocks, settings, melody=melody, on_progress=on_progress, cancel=cancel):
            spool.write(np.ascontiguousarray(part.audio).data)
            samples += len(part.audio)
            largest = max(largest, peak(part.audio))
            f0_source.append(part.f0_source)
            f0.append(part.f0)
            key = part.key
            for stage, spent in part.seconds.items():
                stages[stage] = stages.get(stage, 0.0) + spent
        if output.rate != TAKE_RATE:  # the filter moves the peaks, and the file's are what counts
            largest = max(peak(block) for block in _at_rate(_spooled(spool), output.rate))
        gain = _gain(largest, normalise)
        frames = resampled_length(samples, TAKE_RATE, output.rate)
        # Going through 48 kHz rounds twice; what the file itself says is exact, unless it is only an estimate.
        if info.frames is not None and abs(resampled_length(info.frames, info.rate, TAKE_RATE) - samples) <= 1:
            frames = resampled_length(info.frames, info.rate, output.rate)
        with open_writer(target, output.format.name, output.rate, output.bitrate) as writer:
            for block in _fitted(_at_rate(_spooled(spool), output.rate), frames):
                writer.write(block * np.float32(gain))
    return FileConversion(
        info,
        samples / TAKE_RATE,
        np.concatenate(f0_source),
        np.concatenate(f0),
        key,
        to_db(gain),
        to_db(largest * gain),
        stages,
    )


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
