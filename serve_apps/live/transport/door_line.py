"""A connection to a side door for a thread that waits for its answer: no event loop stands between."""

from __future__ import annotations

import contextlib
import pickle
import select
import socket
import time
from typing import Any

from serve_apps.live.transport.door import LEAVING, Address
from serve_apps.live.transport.frames import HEAD, MOST_BYTES, frame, lost

FIRST_NUMBER = 16
"""Of calls: below are frames that the door sends by itself."""


class DoorLine:
    """Sends calls, and reads what has come. Used by one thread at a time."""

    def __init__(self, address: Address, seconds: float) -> None:
        """Connect, in that time. Raises OSError."""
        self.replica = address.replica
        self.leaving = False
        """Whether the replica is about to stop."""
        self.silent_since: float | None = None
        """When it was given a call first that it has not answered in good time; None if it answers."""
        self._socket = socket.create_connection((address.host, address.port), seconds)
        self._number: int | None = None
        self._buffer, self._filled = bytearray(HEAD.size), 0
        try:
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._socket.sendall(address.token)
            self._socket.setblocking(False)
            if not self._greeted(time.monotonic() + seconds):
                raise ConnectionRefusedError("the replica does not answer, or does not know its token")
        except BaseException:
            self._socket.close()
            raise

    def fileno(self) -> int:
        """For ``select.poll``."""
        return self._socket.fileno()

    def send(self, number: int, value: Any, seconds: float) -> None:
        """Send a call. Raises EOFError if the replica is gone, or takes it not in that time; the line is of no use
        then.
        """
        try:
            self._socket.settimeout(seconds)
            self._socket.sendall(frame(number, value))
            self._socket.setblocking(False)
        except OSError as error:
            raise EOFError from error

    def read(self) -> list[tuple[int, Any]]:
        """The answers that have come whole, with the numbers of their calls. Does not wait. Raises EOFError if the
        replica is gone.
        """
        found: list[tuple[int, Any]] = []
        while True:
            try:
                count = self._socket.recv_into(memoryview(self._buffer)[self._filled :])
            except (BlockingIOError, InterruptedError):
                return found
            except OSError as error:
                raise EOFError from error
            if not count:
                raise EOFError
            self._filled += count
            if self._filled < len(self._buffer):
                continue
            if self._number is None:
                size, self._number = HEAD.unpack(self._buffer)
                if not 0 < size <= MOST_BYTES:
                    raise EOFError
                self._buffer, self._filled = bytearray(size), 0
                continue
            value = pickle.loads(self._buffer)  # noqa: S301 - from a process that knows our token
            if self._number == LEAVING:
                self.leaving = True
            else:
                found.append((self._number, value))
            self._buffer, self._filled, self._number = bytearray(HEAD.size), 0, None

    def ask(self, value: Any, seconds: float) -> Any:
        """One call, while no other is under way -> its answer. Raises StageLostError."""
        try:
            self.send(FIRST_NUMBER, value, seconds)
            end = time.monotonic() + seconds
            while (left := end - time.monotonic()) > 0:
                self._wait(left)
                for number, answer in self.read():
                    if number == FIRST_NUMBER:
                        return answer
        except EOFError as error:
            raise lost(f"replica {self.replica}") from error
        raise lost(f"replica {self.replica}")

    def close(self) -> None:
        """Hang up."""
        with contextlib.suppress(OSError):
            self._socket.close()

    def _greeted(self, end: float) -> bool:
        """Whether the door's first frame came."""
        while (left := end - time.monotonic()) > 0:
            self._wait(left)
            try:
                if self.read():
                    return True
            except EOFError:
                return False
        return False

    def _wait(self, seconds: float) -> None:
        poll = select.poll()  # ``select`` knows no file number above 1023
        poll.register(self._socket, select.POLLIN)
        poll.poll(seconds * 1e3)
