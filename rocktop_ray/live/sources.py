"""Where a live stream comes from: a file, raw samples on a pipe, a microphone."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Iterable, Iterator
from pathlib import Path
from typing import Protocol

import numpy as np

from rocktop_ray.audio.decode import iter_take
from rocktop_ray.errors import AudioError, RocktopError, storage_error
from rocktop_ray.live.device import SoundDevice
from rocktop_ray.live.messages import Format
from rocktop_ray.protocols import Array

_HELD = 8
"""Blocks read from a pipe before they are wanted."""


class Readable(Protocol):
    """A binary file, open for reading."""

    def read(self, size: int, /) -> bytes | None:
        """At most ``size`` bytes; none at the end."""
        ...


class Source(Protocol):
    """Blocks of audio."""

    def blocks(self) -> AsyncIterator[Array]:
        """All of them, float32 mono; once. Raises RocktopError."""
        ...

    def stop(self) -> None:
        """No more blocks are wanted; ``blocks`` ends soon."""
        ...


class FileSource:
    """A recording. ``paced``: each block comes when its last sample would have been sung."""

    def __init__(self, path: Path, rate: int, block: int, *, paced: bool = False) -> None:
        self._path, self._rate, self._block, self._paced = path, rate, block, paced
        self._stopped = asyncio.Event()

    async def blocks(self) -> AsyncIterator[Array]:
        """See ``Source``."""
        parts, began, samples = recut(iter_take(self._path, rate=self._rate), self._block), time.monotonic(), 0
        while not self._stopped.is_set():
            block = await asyncio.to_thread(next, parts, None)
            if block is None:
                return
            samples += len(block)
            if self._paced:
                try:
                    async with asyncio.timeout(max(0.0, began + samples / self._rate - time.monotonic())):
                        await self._stopped.wait()
                    return
                except TimeoutError:
                    pass
            yield block

    def stop(self) -> None:
        """See ``Source``."""
        self._stopped.set()


class PipeSource:
    """Raw mono samples, little endian, such as a program writes to its standard output.

    ``file`` had better be unbuffered: the lock of a buffered one that is being read is in the way when Python ends.
    """

    def __init__(self, file: Readable, format: Format, block: int) -> None:
        self._file, self._dtype, self._block = file, np.dtype({"f32": "<f4", "s16": "<i2"}[format]), block
        self._queue: asyncio.Queue[bytes | RocktopError | None] = asyncio.Queue()
        self._room = threading.Semaphore(_HELD)
        self._stopped = False

    async def blocks(self) -> AsyncIterator[Array]:
        """See ``Source``. Raises AudioError if not one sample comes."""
        loop = asyncio.get_running_loop()
        # A thread that nobody waits for: a read cannot be interrupted.
        threading.Thread(target=self._read, args=(loop,), daemon=True, name="live-input").start()
        came = False
        while data := await self._queue.get():
            if isinstance(data, RocktopError):
                raise data
            self._room.release()
            samples = np.frombuffer(data[: len(data) // self._dtype.itemsize * self._dtype.itemsize], self._dtype)
            if self._dtype.kind == "i":
                samples = samples / np.float32(32768)
            block = samples.astype(np.float32)
            if not np.isfinite(block).all():
                raise AudioError("the input holds values that are not numbers: is it raw samples of this format?")
            if len(block):
                came = True
                yield block
        if not came and not self._stopped:
            raise AudioError("the input is empty: not one sample came", stage="input")

    def stop(self) -> None:
        """See ``Source``."""
        self._stopped = True
        self._queue.put_nowait(None)

    def _whole(self, size: int) -> bytes:
        """So many bytes, fewer only at the end: a pipe gives what there is."""
        data = b""
        while len(data) < size and (more := self._file.read(size - len(data))):
            data += more
        return data

    def _read(self, loop: asyncio.AbstractEventLoop) -> None:
        last: bytes | RocktopError | None = None
        try:
            while data := self._whole(self._block * self._dtype.itemsize):
                self._room.acquire()
                loop.call_soon_threadsafe(self._queue.put_nowait, data)
        except OSError as error:
            last = storage_error(error, "the input", "read", stage="input")
        except RuntimeError:  # the loop is closed: nobody listens any more
            return
        if not loop.is_closed():
            loop.call_soon_threadsafe(self._queue.put_nowait, last)


class MicrophoneSource:
    """A sound device's input, until ``stop``."""

    def __init__(self, device: SoundDevice, block: int) -> None:
        self._device, self._block = device, block
        self._queue: asyncio.Queue[Array | None] = asyncio.Queue()

    async def blocks(self) -> AsyncIterator[Array]:
        """See ``Source``."""
        loop = asyncio.get_running_loop()

        def heard(audio: Array) -> None:
            if not loop.is_closed():
                loop.call_soon_threadsafe(self._queue.put_nowait, audio)

        self._device.start(heard, None)
        held: list[Array] = []
        while (audio := await self._queue.get()) is not None:
            held.append(audio)
            while sum(map(len, held)) >= self._block:
                joined = np.concatenate(held)
                held = [joined[self._block :]]
                yield joined[: self._block]

    def stop(self) -> None:
        """See ``Source``."""
        self._queue.put_nowait(None)


def recut(parts: Iterable[Array], block: int) -> Iterator[Array]:
    """The same samples in blocks of one length; the last one is shorter."""
    held = np.zeros(0, np.float32)
    for part in parts:
        held = np.concatenate([held, part])
        whole = len(held) // block * block
        yield from np.split(held[:whole], range(block, whole, block)) if whole else ()
        held = held[whole:]
    if len(held):
        yield held
