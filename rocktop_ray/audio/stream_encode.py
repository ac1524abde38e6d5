"""Encoding for a receiver that cannot seek: every byte is final when it is sent.

A file's header is corrected at its end. Here the length goes into the header at once where it is known beforehand;
where it is not, the header says so as each format's streams do: sizes of 0xFFFFFFFF in WAV, 0 samples in FLAC, no
duration in WebM, no Info frame in MP3. Ogg never says it at the start. The decoded samples are those of a file, but for
MP3 of unknown length: there the encoder's silence, 23 ms at 48 kHz, stays before the take, as in any MP3 stream.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta

from av.error import FFmpegError

from rocktop_ray.audio.encode import Writer
from rocktop_ray.audio.formats import Output
from rocktop_ray.audio.libav_writer import LibavFile
from rocktop_ray.audio.mp3_tag import info_frame
from rocktop_ray.audio.wav_writer import WavFile
from rocktop_ray.errors import AudioError, AudioFormatError
from rocktop_ray.protocols import Array

_PIECE = 1 << 18
_UNKNOWN_BITS = 36
"""Width of FLAC's number of samples; what does not fit counts as unknown."""


def check_streamable(output: Output) -> None:
    """Raises AudioFormatError for a format whose file begins with what is known only at its end."""
    if output.format.container == "ipod":
        raise AudioFormatError(
            f"{output.format.name} cannot be sent while it is made, because its index is written last: "
            "take ogg, webm, mp3, flac or wav, or ask for the whole file",
            stage="output",
        )


@contextmanager
def open_stream(
    send: Callable[[bytes], None], output: Output, frames: int | None = None, *, seed: int = 0
) -> Iterator[Writer]:
    """Opens an output whose bytes go to ``send`` in pieces of up to 256 KiB, as early as the format allows.

    Args:
        output: from ``check_output``; see ``check_streamable``.
        frames: samples per channel that will be written in all, if that is known; then exactly so many must come.
        seed: of the dither of integer formats.

    Raises AudioFormatError, AudioError (nothing written, or not numbers), and what ``send`` raises.
    """
    check_streamable(output)
    sink = _Sink(send, output, frames)
    try:
        file = _Sent(sink, output, frames, seed)
        try:
            writer = Writer(file, output, "the output")
            yield writer
            if writer.samples == 0:
                raise AudioError("nothing was written to the output", stage="output")
            file.close()
        except BaseException:
            file.abort()
            raise
    except FFmpegError as error:
        raise AudioFormatError(
            f"the output could not be encoded as {output.format.name}: {error}", stage="output"
        ) from error


class _Sink:
    """What the encoders write into. Bytes wait for ``pass_on``: an error of ``send`` must not pass through FFmpeg."""

    def __init__(self, send: Callable[[bytes], None], output: Output, frames: int | None) -> None:
        self._send, self._codec, self._frames = send, output.format.codec, frames
        self._held = bytearray()
        self._begun = False

    def seekable(self) -> bool:
        return False

    def write(self, data: bytes) -> int:
        self._held += data
        return len(data)

    def pass_on(self) -> None:
        if self._held and not self._begun:
            self._begin()
        data = bytes(self._held)
        self._held.clear()
        for start in range(0, len(data), _PIECE):
            self._send(data[start : start + _PIECE])

    def _begin(self) -> None:
        """What FFmpeg would go back for, put into the first bytes."""
        self._begun = True
        if self._codec == "libmp3lame" and self._frames is not None:
            self._held[:0] = info_frame(bytes(self._held[:4]), self._frames)
        elif self._codec == "flac" and self._frames is not None and self._frames < 1 << _UNKNOWN_BITS:
            # The last 36 bits of the first 18 bytes of STREAMINFO, which follows 8 bytes of marker and block header.
            fields = int.from_bytes(self._held[18:26], "big") | self._frames
            self._held[18:26] = fields.to_bytes(8, "big")


class _Sent:
    """An encoder whose bytes are passed on after every block."""

    def __init__(self, sink: _Sink, output: Output, frames: int | None, seed: int) -> None:
        self._sink = sink
        self._file: WavFile | LibavFile
        if output.format.codec == "pcm":
            self._file = WavFile(sink, output, {}, seed, frames=frames)
        else:
            length = None if frames is None else timedelta(seconds=frames / output.rate)
            self._file = LibavFile(sink, output, {}, seed, length=length)

    def write(self, block: Array) -> None:
        self._file.write(block)
        self._sink.pass_on()

    def close(self) -> None:
        self._file.close()
        self._sink.pass_on()

    def abort(self) -> None:
        self._file.abort()
