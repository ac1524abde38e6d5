"""A connection that breaks as soon as a process is killed.

The kernel tears a killed process's memory down before it closes its files: tens of milliseconds pass for half a GB.
A thread with a file table of its own (``unshare(CLONE_FILES)``) leaves both at once. So one of them holds a listening
socket that nobody accepts from: whoever is connected to it hears of the end in a millisecond.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import socket
import sys
import threading
from contextlib import suppress
from functools import cache

_CLONE_FILES = 0x400
_MOST = 512
"""Connections over a process's life, as nobody takes them away; further ones do without."""
_SECONDS = 1.0


@cache
def hang_out(host: str) -> int | None:
    """The port of this process's lifeline. None where the system has no such threads, or allows none."""
    if sys.platform != "linux":
        return None
    found: list[int] = []
    ready = threading.Event()
    threading.Thread(target=_hold, args=(host, found, ready), name="lifeline", daemon=True).start()
    ready.wait(_SECONDS)
    return found[0] if found else None


async def until_death(host: str, port: int) -> bool:
    """Returns when the process has died: True. False if its line cannot be held."""
    try:
        async with asyncio.timeout(_SECONDS):
            reader, writer = await asyncio.open_connection(host, port)
    except (OSError, TimeoutError):
        return False
    try:
        await reader.read(1)
    except OSError:
        pass
    finally:
        writer.close()
    return True


def _hold(host: str, found: list[int], ready: threading.Event) -> None:
    """In a thread that does nothing else: whatever it opened or closed would be in its own table."""
    with suppress(OSError):
        if ctypes.CDLL(None, use_errno=True).unshare(_CLONE_FILES):
            ready.set()
            return
        os.closerange(3, os.sysconf("SC_OPEN_MAX"))  # what others hold here could not end with them
        server = socket.create_server((host, 0), backlog=_MOST)
        found.append(server.getsockname()[1])
        ready.set()
        threading.Event().wait()
    ready.set()
