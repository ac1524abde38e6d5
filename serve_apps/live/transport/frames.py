"""Calls between two of our own processes over one connection: frames of a length, a number and a pickled value.

A call over a handle of Serve takes some milliseconds, of which a block of 40 ms has none to spare. Pickle runs what it
is told to, so nothing is read from a connection before it has shown its token: a random one of each process, which is
passed on over Serve only. Traffic is as open as Ray's own: see docs/live-serve.md.
"""

from __future__ import annotations

import asyncio
import hmac
import pickle
import struct
from typing import Any

from rocktop_ray.errors import StageLostError

TOKEN_BYTES = 32
MOST_BYTES = 256 << 20
BUFFER_BYTES = 1 << 22
HEAD = struct.Struct("<IQ")
"""Length and number."""


class FrameReader:
    """The reading end. Raises EOFError when the other has gone, or sends what is no frame."""

    def __init__(self, stream: asyncio.StreamReader) -> None:
        self._stream = stream

    async def admit(self, token: bytes) -> bool:
        """Whether the other shows the token."""
        return hmac.compare_digest(await self._exactly(TOKEN_BYTES), token)

    async def read(self) -> tuple[int, Any]:
        """The next frame: its number and value. Only of a connection that was admitted."""
        size, number = HEAD.unpack(await self._exactly(HEAD.size))
        if size > MOST_BYTES:
            raise EOFError
        return number, pickle.loads(await self._exactly(size))  # noqa: S301 - from a process that shows our token

    async def _exactly(self, count: int) -> bytes:
        try:
            return await self._stream.readexactly(count)
        except (asyncio.IncompleteReadError, OSError) as error:
            raise EOFError from error


def frame(number: int, value: Any) -> bytes:
    """A frame as bytes, in one piece: the other end need not wake twice."""
    data = pickle.dumps(value, protocol=5)
    return HEAD.pack(len(data), number) + data


def write_frame(to: asyncio.StreamWriter, number: int, value: Any) -> None:
    """Queue a frame. Nothing happens where the other has gone: the reader notices."""
    to.write(frame(number, value))


def lost(who: str) -> StageLostError:
    """The error of calls whose answer cannot come any more."""
    return StageLostError(f"{who} was lost: send the blocks again, with the state before them")
