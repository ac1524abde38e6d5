"""Ports for the servers that tests start."""

from __future__ import annotations

import contextlib
import random
import socket

_FROM, _TO = 20_000, 32_700
"""Above those of Ray's workers, below those that Linux gives to whoever asks for any: nobody takes one of them between
its choice and its use."""


def free_ports(count: int, *, also: int = 0) -> list[int]:
    """Different TCP ports of loopback that nobody uses; ``also``: each one's number plus that is free, too."""
    found: list[int] = []
    chance = random.SystemRandom()
    with contextlib.ExitStack() as held:
        while len(found) < count:
            port = chance.randrange(_FROM, _TO - also)
            with contextlib.suppress(OSError), contextlib.ExitStack() as own:
                for number in {port, port + also}:
                    own.enter_context(socket.socket()).bind(("127.0.0.1", number))
                held.enter_context(own.pop_all())
                found.append(port)
    return found


def free_port() -> int:
    """One."""
    return free_ports(1)[0]
