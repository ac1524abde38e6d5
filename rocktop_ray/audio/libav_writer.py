"""Encoding by FFmpeg's libraries (PyAV): flac, Opus in ogg and webm, mp3, AAC in m4a.

The same samples give the same bytes: FFmpeg's bit-exact mode leaves out random serial numbers and version strings.
Lengths come back exact, with two exceptions: MP3 has up to 47 samples of silence more at some lengths, because LAME's
tag can say no less, and Opus in webm fills takes below 20 ms.
LAME turns the level down by 0.45 dB (a factor of 0.95), its guard against clipping in the decoder.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from datetime import timedelta
from fractions import Fraction
from typing import IO, Any

import av
import numpy as np
from av.codec.context import Flags
from av.error import FFmpegError

from rocktop_ray.audio.dither import Quantiser
from rocktop_ray.audio.formats import Output
from rocktop_ray.audio.wav_writer import Sink
from rocktop_ray.protocols import Array

_SAMPLE_FORMATS = {"libopus": "flt", "libmp3lame": "fltp", "aac": "fltp"}


class LibavFile:
    """An encoded file that grows. ``length``, if known, is for a ``file`` that cannot seek."""

    def __init__(
        self,
        file: Sink | IO[bytes],
        output: Output,
        tags: Mapping[str, str],
        seed: int,
        *,
        length: timedelta | None = None,
    ) -> None:
        entry = output.format
        options = {"fflags": "+bitexact"}
        if not file.seekable():
            options["fflags"] = "+bitexact+flush_packets"
            if entry.container == "mp3":  # its headers are left to ``mp3_tag``
                options.update(write_xing="0", id3v2_version="0")
        if entry.container == "ipod":
            # The edit list counts in these units: with samples the length is exact, by default it is in ms.
            options["movie_timescale"] = str(output.rate)
        self._container: Any = av.open(file, mode="w", format=entry.container, options=options)
        self._container.metadata.update(tags)
        self._layout = "mono" if output.channels == 1 else "stereo" if output.channels == 2 else f"{output.channels}c"
        self._stream: Any = self._container.add_stream(entry.codec, rate=output.rate, layout=self._layout)
        if length is not None and entry.container == "webm":
            self._stream.metadata["DURATION"] = str(length)  # told in the header when it cannot be put there later
        context: Any = self._stream.codec_context
        context.flags |= Flags.bitexact
        self._kind = _SAMPLE_FORMATS.get(entry.codec) or ("s16" if entry.bits == 16 else "s32")
        context.format = self._kind
        if output.bitrate is not None:
            context.bit_rate = output.bitrate
        self._bits = entry.bits
        self._quantise = Quantiser(entry.bits, seed) if entry.bits else None
        self._rate = output.rate
        self._written = 0
        context.open()

    def write(self, block: Array) -> None:
        """Appends ``[n, channels]``."""
        samples: Any = block
        if self._quantise is not None:
            # FFmpeg's 24-bit samples are the high bits of 32.
            whole = self._quantise(block)
            samples = whole.astype(np.int16) if self._bits == 16 else whole << 8
        array = samples.T if self._kind.endswith("p") else samples.reshape(1, -1)
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(array), format=self._kind, layout=self._layout)
        frame.sample_rate = self._rate
        frame.time_base = Fraction(1, self._rate)
        frame.pts = self._written
        self._written += len(block)
        self._container.mux(self._stream.encode(frame))

    def close(self) -> None:
        """Flushes the encoder and writes the end."""
        self._container.mux(self._stream.encode(None))
        self._container.close()

    def abort(self) -> None:
        """Frees the encoder; what it still wants to write does not matter."""
        with contextlib.suppress(FFmpegError, OSError, ValueError):
            self._container.close()
