"""Where a live stream goes: a file, raw samples on a pipe, a loudspeaker. None of it ever peaks above -1 dBFS."""

from __future__ import annotations

import asyncio
import tempfile
import threading
from pathlib import Path
from typing import IO, BinaryIO, Protocol

import numpy as np

from rocktop_ray.audio.encode import open_writer
from rocktop_ray.audio.formats import Output
from rocktop_ray.audio.level import CEILING_DBFS, from_db, normalising_gain, peak
from rocktop_ray.audio.limiter import Limiter
from rocktop_ray.errors import StorageError, storage_errors
from rocktop_ray.live.device import SoundDevice
from rocktop_ray.live.messages import Format
from rocktop_ray.live.playout import Playout, PlayoutCounts
from rocktop_ray.protocols import Array

_BLOCK = 1 << 18
_LOOK_AHEAD = 0.001
"""Seconds by which the limiter delays what is heard at once."""
_SOON = 0.05
_DRAIN = 2.0
"""Seconds for which the end of a stream may play on."""


class Sink(Protocol):
    """Takes audio in the source's clock."""

    async def write(self, audio: Array) -> None:
        """The next samples. Raises RocktopError."""
        ...

    async def finish(self) -> None:
        """All came. Raises RocktopError."""
        ...

    def discard(self) -> None:
        """What came is not wanted, as far as it can be taken back. ``finish`` may have been called."""
        ...


class FileSink:
    """A recording, which appears when it is complete. Too loud ones are turned down as a whole, as everywhere."""

    def __init__(self, path: Path, output: Output) -> None:
        self._path, self._output = path, output
        with storage_errors("the temporary folder"):
            self._spool: IO[bytes] = tempfile.TemporaryFile(prefix="rocktop-")  # noqa: SIM115 - closed at the end
        self._peak = 0.0
        self.samples = 0
        """So far."""

    async def write(self, audio: Array) -> None:
        """See ``Sink``."""
        with storage_errors("the temporary folder"):
            self._spool.write(np.ascontiguousarray(audio, np.float32).data)
        self._peak = max(self._peak, peak(audio))
        self.samples += len(audio)

    async def finish(self) -> None:
        """See ``Sink``."""
        await asyncio.to_thread(self._encode)

    def discard(self) -> None:
        """See ``Sink``."""
        self._spool.close()

    def _encode(self) -> None:
        loud = self._peak > from_db(CEILING_DBFS)
        gain = np.float32(normalising_gain(self._peak, CEILING_DBFS) if loud else 1.0)
        output = self._output
        with storage_errors("the temporary folder"):
            self._spool.seek(0)
            with open_writer(self._path, output.format.name, output.rate, output.bitrate) as writer:
                while data := self._spool.read(_BLOCK * 4):
                    writer.write(np.frombuffer(data, np.float32) * gain)
        self._spool.close()


class PipeSink:
    """Raw mono samples, little endian, written as soon as they are there. A limiter holds the peaks down."""

    def __init__(self, file: BinaryIO, format: Format, rate: int) -> None:
        self._file, self._format = file, format
        self._limiter = Limiter(rate, CEILING_DBFS, look_ahead=_LOOK_AHEAD, block=max(1, rate // 1000))

    async def write(self, audio: Array) -> None:
        """See ``Sink``."""
        await self._put(self._limiter.push(audio))

    async def finish(self) -> None:
        """See ``Sink``."""
        await self._put(self._limiter.finish())

    def discard(self) -> None:
        """See ``Sink``."""

    async def _put(self, audio: Array) -> None:
        if self._format == "s16":
            data = np.clip(np.rint(audio * np.float32(32768)), -32768, 32767).astype("<i2").tobytes()
        else:
            data = audio.astype("<f4").tobytes()
        await asyncio.to_thread(self._write, data)

    def _write(self, data: bytes) -> None:
        try:
            with storage_errors("the output", "write"):
                left = memoryview(data)
                while left:
                    left = left[self._file.write(left) or 0 :]
                self._file.flush()
        except StorageError as error:
            if isinstance(error.__cause__, BrokenPipeError):
                raise StorageError("whoever read the output is gone") from error
            raise


class SpeakerSink:
    """A sound device's output. ``target``: see ``Playout``."""

    def __init__(self, device: SoundDevice, target: float) -> None:
        self._device, self._playout, self._guard = device, Playout(device.rate, target), threading.Lock()
        rate = device.rate
        self._limiter = Limiter(rate, CEILING_DBFS, look_ahead=_LOOK_AHEAD, block=max(1, rate // 1000))
        self._playing = False

    @property
    def counts(self) -> PlayoutCounts:
        """What was heard of trouble."""
        return self._playout.counts

    @property
    def seconds(self) -> float:
        """That wait to be played."""
        return self._playout.seconds

    async def write(self, audio: Array) -> None:
        """See ``Sink``."""
        self._push(self._limiter.push(audio))
        if not self._playing:
            self._playing = True
            self._device.start(None, self._wanted)

    async def finish(self) -> None:
        """See ``Sink``."""
        self._push(self._limiter.finish())
        self._push(np.zeros(round((self._playout.target + 2 * _SOON) * self._device.rate), np.float32))  # plays it all
        before, waited = self.counts.underruns, 0.0
        while self._playing and self.seconds > _SOON and waited < _DRAIN:
            await asyncio.sleep(0.01)
            waited += 0.01
        self.counts.underruns = before  # the end is none
        self._device.stop()

    def discard(self) -> None:
        """See ``Sink``."""
        self._device.stop()

    def _push(self, audio: Array) -> None:
        with self._guard:
            self._playout.push(audio)

    def _wanted(self, samples: int) -> Array:
        with self._guard:
            return self._playout.pull(samples)
