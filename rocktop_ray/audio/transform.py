"""One file into another, in bounded memory: resample, normalise, trim, slice. Channels are kept."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from rocktop_ray.audio.decode import open_reader
from rocktop_ray.audio.encode import open_writer
from rocktop_ray.audio.info import DEFAULT_LIMITS, AudioLimits
from rocktop_ray.audio.level import normalising_gain, peak, sounding_span
from rocktop_ray.audio.resample import StreamResampler
from rocktop_ray.audio.slice import SliceSettings, slice_spans
from rocktop_ray.errors import AudioError
from rocktop_ray.protocols import Array


def resample_file(
    source: Path,
    target: Path,
    rate: int,
    format: str = "wav",
    *,
    bitrate: int | str | None = None,
    limits: AudioLimits = DEFAULT_LIMITS,
) -> None:
    """Writes ``source`` at ``rate``. Raises what open_reader and open_writer raise."""
    with (
        open_reader(source, limits) as reader,
        open_writer(target, format, rate, bitrate, reader.info.channels) as writer,
    ):
        resampler = StreamResampler(reader.info.rate, rate, reader.info.channels)
        for block in reader:
            writer.write(resampler.push(block))
        writer.write(resampler.finish())


def normalise_file(
    source: Path,
    target: Path,
    dbfs: float = -1.0,
    format: str = "wav",
    *,
    bitrate: int | str | None = None,
    limits: AudioLimits = DEFAULT_LIMITS,
) -> None:
    """Writes ``source`` with its peak at ``dbfs``, all channels by the same factor; it is read twice.

    Silence stays as it is. Raises what open_reader and open_writer raise, SettingsError for a peak above 0 dBFS.
    """
    largest = 0.0
    with open_reader(source, limits) as reader:
        for block in reader:
            largest = max(largest, peak(block))
    gain = np.float64(normalising_gain(largest, dbfs))
    with (
        open_reader(source, limits) as reader,
        open_writer(target, format, reader.info.rate, bitrate, reader.info.channels) as writer,
    ):
        for block in reader:
            writer.write((block * gain).astype(np.float32))


def trim_file(
    source: Path,
    target: Path,
    threshold_db: float = -50.0,
    keep_seconds: float = 0.05,
    format: str = "wav",
    *,
    bitrate: int | str | None = None,
    limits: AudioLimits = DEFAULT_LIMITS,
) -> None:
    """Writes ``source`` without its quiet ends. Raises AudioError if nothing sounds; else as resample_file."""
    audio, rate = _whole(source, limits)
    start, stop = sounding_span(audio, rate, threshold_db, keep_seconds)
    if stop == start:
        raise AudioError(f"{source} is below {threshold_db:g} dBFS throughout; nothing would be left")
    with open_writer(target, format, rate, bitrate, audio.shape[1]) as writer:
        writer.write(audio[start:stop])


def slice_file(
    source: Path,
    folder: Path,
    settings: SliceSettings | None = None,
    format: str = "wav",
    *,
    suffix: str = ".wav",
    limits: AudioLimits = DEFAULT_LIMITS,
) -> list[Path]:
    """Writes the slices of ``source`` as ``folder/NAME_0000.wav``...; returns their paths. Raises as resample_file."""
    audio, rate = _whole(source, limits)
    paths = []
    for number, (start, stop) in enumerate(slice_spans(audio, rate, settings)):
        path = folder / f"{source.stem}_{number:04d}{suffix}"
        with open_writer(path, format, rate, channels=audio.shape[1]) as writer:
            writer.write(audio[start:stop])
        paths.append(path)
    return paths


def _whole(source: Path, limits: AudioLimits) -> tuple[Array, int]:
    with open_reader(source, limits) as reader:
        return np.concatenate(list(reader)), reader.info.rate
