"""Decoding by FFmpeg's libraries (PyAV): mp3, m4a/mp4/mov, webm/mkv, aac, wma, amr, mpeg, avi and others.

Foreign files must not make the demuxer open anything else: only a file object is handed over, the playlist-like and
device formats (hls, concat, sdp, dash...) are not on the list of accepted formats, and no protocol is allowed.
Encoder delay and padding are cut where the container says so: LAME's tag in MP3, pre-skip and end trim in Opus, edit
lists in MP4 (the end is cut to the edit list's length). Matroska and bare ADTS AAC do not say it: 1024 samples or so of
silence stay in front.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import av
import numpy as np
from av.error import FFmpegError

from rocktop_ray.audio.info import AudioInfo
from rocktop_ray.audio.integrity import mp3_seconds
from rocktop_ray.audio.source import DecoderFile, Source
from rocktop_ray.errors import AudioError, AudioFormatError, SettingsError
from rocktop_ray.protocols import Array

FORMATS = (
    "aac,ac3,aiff,amr,ape,asf,au,avi,caf,dsf,dts,eac3,flac,flv,iff,matroska,webm,mov,mp4,m4a,3gp,3g2,mj2,mp3,mpc,mpc8,"
    "mpeg,mpegts,ogg,oma,tak,tta,voc,w64,wav,wv"
)
"""Demuxers that may open a foreign file: plain containers only."""

_BLOCK_FRAMES = 1 << 15
_LARGEST_FRAME = 2048  # of AAC; what an MP4 may hold past its edit list
_BROKEN_PACKETS = 1000
_SCALES = {"u8": 2.0**-7, "s16": 2.0**-15, "s32": 2.0**-31, "s64": 2.0**-63, "flt": 1.0, "dbl": 1.0}


class LibavReader:
    """One open file. ``blocks`` may be called once."""

    def __init__(self, source: Source, stream: int | None = None) -> None:
        """Opens audio stream number ``stream`` (default the first) and decodes its first frame.

        Raises AudioError (not audio, no audio stream, undecodable), SettingsError for a stream that is not there.
        """
        self._name = source.name
        mp3_length = mp3_seconds(source.file)
        source.file.seek(0)
        try:
            self._container = av.open(
                DecoderFile(source.file),
                mode="r",
                options={"format_whitelist": FORMATS, "protocol_whitelist": "none"},
                metadata_errors="replace",
            )
        except (FFmpegError, ValueError) as error:
            raise AudioFormatError(
                f"{source.name} is not audio that can be read, or its end is missing "
                "(wav, flac, aiff, ogg, opus, mp3, m4a, mp4, webm and others can be read)"
            ) from error
        try:
            self._stream = self._pick(stream)
            self._frames = self._decode()
            self._first = next(self._frames, None)
            if self._first is None:
                raise AudioError(f"{source.name} holds no audio that can be decoded")
            self.info = self._describe()
        except BaseException:
            self._container.close()
            raise
        self._trim_to: int | None = None
        self.promised_seconds: float | None = None
        # A duration is rounded to milliseconds in some containers and may lack or include the encoder's delay.
        self.tolerance_seconds = 0.1
        if self.info.container == "mov":
            self.promised_seconds = self.info.seconds
            self._trim_to = self.info.frames
        elif self.info.container == "matroska" and len(self._container.streams) == 1:
            self.promised_seconds = self.info.seconds
        elif self.info.container == "mp3":
            self.promised_seconds = mp3_length
            self.tolerance_seconds += 2400 / self.info.rate  # delay and padding, at most

    def _pick(self, stream: int | None) -> Any:
        streams = self._container.streams.audio
        if not streams:
            kinds = ", ".join(sorted({other.type for other in self._container.streams}))
            raise AudioError(f"{self._name} has no audio in it" + (f", only {kinds}" if kinds else ""))
        chosen = 0 if stream is None else stream
        if not 0 <= chosen < len(streams):
            raise SettingsError(f"{self._name} has audio streams 0 to {len(streams) - 1}; there is no {stream}")
        picked = streams[chosen]
        if picked.codec_context is None:
            raise AudioFormatError(f"{self._name}: its audio codec is not supported")
        return picked

    def _describe(self) -> AudioInfo:
        assert self._first is not None
        container = self._container.format.name.split(",")[0]
        # After the first frame: AAC with SBR shows its real rate only when decoded.
        rate = self._first.sample_rate
        exact = container == "mov" and self._stream.duration is not None
        seconds = None
        if self._stream.duration is not None:
            seconds = float(self._stream.duration * self._stream.time_base)
        elif self._container.duration is not None:
            seconds = self._container.duration / 1e6
        return AudioInfo(
            rate=rate,
            channels=self._first.layout.nb_channels,
            frames=round(seconds * rate) if exact and seconds is not None else None,
            seconds=seconds,
            codec=self._stream.codec_context.name,
            container=container,
        )

    def _decode(self) -> Iterator[av.AudioFrame]:
        """Frames in order. Damage before the first sound and after the last is passed over (tags, cut ends)."""
        decoded, broken, damage = 0, 0, None
        packets = self._container.demux(self._stream)
        while True:
            try:
                frames = next(packets).decode()
            except (StopIteration, EOFError):
                return
            except FFmpegError as error:
                damage = decoded if damage is None else damage
                broken += 1
                if broken > _BROKEN_PACKETS:
                    raise AudioError(f"{self._name} is not audio that can be decoded") from error
                continue
            for frame in frames:
                if not isinstance(frame, av.AudioFrame) or not frame.samples:
                    continue
                if damage:
                    raise AudioError(f"{self._name} is damaged at {damage / frame.sample_rate:.2f} s; export it again")
                damage = None
                decoded += frame.samples
                yield frame

    def blocks(self) -> Iterator[Array]:
        """Blocks ``[n, channels]``."""
        assert self._first is not None
        waiting, count, given = [self._array(self._first)], self._first.samples, 0
        for frame in self._frames:
            if frame.sample_rate != self.info.rate or frame.layout.nb_channels != self.info.channels:
                where = (given + count) / self.info.rate
                raise AudioError(f"{self._name} changes its rate or channels at {where:.2f} s; export it as one format")
            waiting.append(self._array(frame))
            count += frame.samples
            if count >= _BLOCK_FRAMES + _LARGEST_FRAME:
                # Some frames stay behind, so that the end can still be cut.
                block = np.concatenate(waiting)
                yield block[:_BLOCK_FRAMES]
                waiting, count, given = [block[_BLOCK_FRAMES:]], count - _BLOCK_FRAMES, given + _BLOCK_FRAMES
        block = np.concatenate(waiting)
        if self._trim_to is not None and 0 < given + count - self._trim_to <= min(_LARGEST_FRAME, count):
            block = block[: self._trim_to - given]
        if len(block):
            yield block

    def _array(self, frame: av.AudioFrame) -> Array:
        """One frame as ``[n, channels]``, full scale 1."""
        kind = frame.format.name.removesuffix("p")
        if kind not in _SCALES:
            raise AudioFormatError(f"{self._name}: samples of type {frame.format.name} are not supported")
        raw = frame.to_ndarray()
        raw = raw.T if frame.format.is_planar else raw.reshape(-1, frame.layout.nb_channels)
        if kind in ("flt", "dbl"):
            return np.ascontiguousarray(raw, np.float32)
        middle = 128.0 if kind == "u8" else 0.0
        return np.ascontiguousarray((raw - middle) * _SCALES[kind], np.float32)

    def close(self) -> None:
        """Closes the decoder, not the source."""
        self._container.close()
