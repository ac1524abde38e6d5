"""Decoding by libsndfile: wav, flac, aiff, caf, w64, au, ogg (vorbis, opus, flac), voc, nist.

Only files that begin like one of these are shown to it: on others it tries MP3, and complains on the terminal.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import IO

import numpy as np
import soundfile

from rocktop_ray.audio.info import AudioInfo
from rocktop_ray.audio.integrity import riff_promise
from rocktop_ray.audio.source import DecoderFile, Source
from rocktop_ray.errors import AudioError
from rocktop_ray.protocols import Array

_BLOCK_SAMPLES = 1 << 17
_OPEN_LENGTH = 1 << 48  # libsndfile's stand-in for a length that the header leaves open


_HEADS = (b"RIFF", b"RIFX", b"RF64", b"riff", b"FORM", b"fLaC", b"OggS", b"caff", b".snd", b"dns.", b"Crea", b"NIST")


def is_sndfile(file: IO[bytes]) -> bool:
    """True if a file begins like one of the formats that are left to libsndfile."""
    file.seek(0)
    head = file.read(4)
    file.seek(0)
    return head in _HEADS


class SndfileReader:
    """One open file. ``blocks`` may be called once."""

    def __init__(self, source: Source) -> None:
        """Raises soundfile.LibsndfileError if the file is not one of its formats, AudioError if it is cut off."""
        promise = riff_promise(source.file, source.size)
        source.file.seek(0)
        self._file = soundfile.SoundFile(
            source.file.fileno() if source.on_disk else DecoderFile(source.file), closefd=False
        )
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
        # Lengths of samples are exact, those of codecs inside WAV and the like are estimates.
        exact = self.info.codec.startswith(("pcm", "float", "double"))
        self.tolerance_seconds = 0.0 if exact else 0.1

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
