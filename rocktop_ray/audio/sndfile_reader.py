"""Decoding by libsndfile: wav, flac, aiff, caf, w64, au, ogg (vorbis, opus, flac) and its other formats but MP3."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import soundfile

from rocktop_ray.audio.info import AudioInfo
from rocktop_ray.audio.integrity import riff_promise
from rocktop_ray.audio.source import Source
from rocktop_ray.errors import AudioError
from rocktop_ray.protocols import Array

_BLOCK_SAMPLES = 1 << 17
_OPEN_LENGTH = 1 << 48  # libsndfile's stand-in for a length that the header leaves open


class SndfileReader:
    """One open file. ``blocks`` may be called once."""

    def __init__(self, source: Source) -> None:
        """Raises soundfile.LibsndfileError if the file is not one of its formats, AudioError if it is cut off."""
        promise = riff_promise(source.file, source.size)
        source.file.seek(0)
        self._file = soundfile.SoundFile(source.file.fileno() if source.on_disk else source.file, closefd=False)
        try:
            rate, channels, frames = self._file.samplerate, self._file.channels, self._file.frames
            known = 0 <= frames < _OPEN_LENGTH
            if promise is not None and promise.broken:
                held = frames / rate if known else 0.0
                whole = held * promise.promised / max(promise.held, 1)
                raise AudioError(
                    f"{source.name} is cut off: it holds {promise.held:,} of {promise.promised:,} bytes of audio "
                    f"({held:.2f} of {whole:.2f} s); copy or export it again"
                )
        except AudioError:
            self._file.close()
            raise
        self.info = AudioInfo(
            rate=rate,
            channels=channels,
            frames=frames if known else None,
            seconds=frames / rate if known else None,
            codec=self._file.subtype.lower(),
            container=self._file.format.lower(),
        )
        self.promised_seconds = self.info.seconds
        self.tolerance_seconds = 0.0

    @property
    def is_mp3(self) -> bool:
        """MP3 is left to libav: its length here is a guess where the file does not say it."""
        return bool(self._file.format in ("MPEG", "MP3"))

    def blocks(self) -> Iterator[Array]:
        """Blocks ``[n, channels]``."""
        frames = max(1, _BLOCK_SAMPLES // self.info.channels)
        while True:
            block = self._file.read(frames, dtype="float32", always_2d=True)
            if not len(block):
                return
            yield np.ascontiguousarray(block)

    def close(self) -> None:
        """Closes the decoder, not the source."""
        self._file.close()
