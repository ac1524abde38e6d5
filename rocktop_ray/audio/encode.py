"""Writing recordings: streaming, all or nothing."""

from __future__ import annotations

import io
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, BinaryIO, Protocol

import numpy as np
from av.error import FFmpegError

from rocktop_ray.audio.formats import Output, check_output, format_for
from rocktop_ray.audio.libav_writer import LibavFile
from rocktop_ray.audio.wav_writer import WavFile
from rocktop_ray.errors import AudioError, AudioFormatError, SettingsError, StorageError, storage_errors
from rocktop_ray.protocols import TAKE_RATE, Array
from rocktop_ray.store.atomic import atomic_path

TAGS = ("title", "artist", "comment", "copyright", "software")
_BLOCK = 1 << 16
_SPOOL = 16 * 1024**2


class _File(Protocol):
    def write(self, block: Array) -> None: ...

    def close(self) -> None: ...

    def abort(self) -> None: ...


class Writer:
    """An open output. Give it blocks in order."""

    def __init__(self, file: _File, output: Output, name: str) -> None:
        self.output = output
        self.name = name
        self.samples = 0
        """Samples per channel so far."""
        self.clipped = 0
        """Samples over full scale so far: integer formats clip them, lossy ones may."""
        self._file = file

    def write(self, block: Array) -> None:
        """Appends float32 ``[n]`` (mono) or ``[n, channels]``, full scale ±1.

        Raises AudioError for NaN or infinite samples or another number of channels, StorageError if the disk refuses.
        """
        frames = block[:, None] if block.ndim == 1 else block
        if frames.ndim != 2 or frames.shape[1] != self.output.channels:
            raise AudioError(
                f"{self.name} takes {self.output.channels} channels; the block is {block.shape}", stage="output"
            )
        for start in range(0, len(frames), _BLOCK):
            part = np.asarray(frames[start : start + _BLOCK], np.float32)
            if not np.isfinite(part).all():
                at = self.samples / self.output.rate
                raise AudioError(f"not writing {self.name}: samples near {at:.2f} s are not numbers", stage="output")
            self.clipped += int(np.count_nonzero(np.abs(part) > 1.0))
            self._file.write(part)
            self.samples += len(part)


def _check_tags(tags: Mapping[str, str] | None) -> dict[str, str]:
    given = {key: value for key, value in (tags or {}).items() if value}
    if unknown := sorted(set(given) - set(TAGS)):
        raise SettingsError(f"unknown tag {', '.join(unknown)}; choose {', '.join(TAGS)}")
    return given


@contextmanager
def open_writer(
    target: str | os.PathLike[str] | BinaryIO,
    format: str | None = None,
    rate: int = TAKE_RATE,
    bitrate: int | str | None = None,
    channels: int = 1,
    *,
    tags: Mapping[str, str] | None = None,
    seed: int = 0,
) -> Iterator[Writer]:
    """Opens an output file. It appears under its name only when the ``with`` block ends without an error.

    Until then a hidden ``.part`` file beside it grows; a failure removes it, a killed process leaves only that. An
    existing file is replaced in one step, a missing folder is made. A file object receives everything at the end.

    Args:
        target: path, or writable binary file object.
        format: a key of formats.FORMATS; None to go by the ending of the path (a file object: ``wav``).
        rate: Hz of the blocks; nothing is resampled here.
        bitrate: see formats.check_output.
        channels: columns of the blocks.
        tags: text for ``title``, ``artist``, ``comment``, ``copyright``, ``software``.
        seed: of the dither of integer formats.

    Raises:
        AudioFormatError: the format refuses the rate, bitrate or channels.
        StorageError: the folder is read-only, the path is a folder, or the disk is full.
        AudioError: nothing was written into it, or not numbers.
    """
    path = Path(target) if isinstance(target, str | os.PathLike) else None
    if format is None:
        format = format_for(path) if path is not None else "wav"
    output = check_output(format, rate, bitrate, channels)
    texts = _check_tags(tags)
    name = str(path) if path is not None else "the output"
    try:
        with _destination(target, name) as file:
            opened: _File = (WavFile if output.format.codec == "pcm" else LibavFile)(file, output, texts, seed)
            try:
                writer = Writer(opened, output, name)
                yield writer
                if writer.samples == 0:
                    raise AudioError(f"nothing was written to {name}", stage="output")
                opened.close()
            except BaseException:
                opened.abort()
                raise
    except FFmpegError as error:
        raise AudioFormatError(
            f"{name} could not be encoded as {output.format.name}: {error}", stage="output"
        ) from error


@contextmanager
def _destination(target: str | os.PathLike[str] | BinaryIO, name: str) -> Iterator[IO[bytes]]:
    """A file to write into, moved to its place on success."""
    if not isinstance(target, str | os.PathLike):
        with storage_errors(name), tempfile.SpooledTemporaryFile(max_size=_SPOOL) as spooled:
            yield spooled
            spooled.seek(0)
            shutil.copyfileobj(spooled, target)
        return
    if Path(target).is_dir():
        raise StorageError(f"{name} is a folder; name a file", stage="output")
    with atomic_path(Path(target)) as part, _open_part(part) as file:
        yield file


def _open_part(path: Path) -> IO[bytes]:
    return path.open("xb")


def write_take(
    path: str | os.PathLike[str],
    audio: Array,
    rate: int = TAKE_RATE,
    format: str | None = None,
    *,
    bitrate: int | str | None = None,
    tags: Mapping[str, str] | None = None,
    seed: int = 0,
) -> None:
    """Writes float32 ``[n]`` or ``[n, channels]`` to a file; see open_writer."""
    channels = 1 if audio.ndim == 1 else audio.shape[1]
    with open_writer(path, format, rate, bitrate, channels, tags=tags, seed=seed) as writer:
        writer.write(audio)


def encode_bytes(
    audio: Array,
    format: str = "ogg",
    rate: int = TAKE_RATE,
    bitrate: int | str | None = None,
    *,
    tags: Mapping[str, str] | None = None,
    seed: int = 0,
) -> bytes:
    """Float32 ``[n]`` or ``[n, channels]`` as the bytes of a file; see open_writer."""
    channels = 1 if audio.ndim == 1 else audio.shape[1]
    memory = io.BytesIO()
    with open_writer(memory, format, rate, bitrate, channels, tags=tags, seed=seed) as writer:
        writer.write(audio)
    return memory.getvalue()
