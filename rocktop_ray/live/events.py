"""What happens in a stream besides audio, as the client tells it."""

from __future__ import annotations

from dataclasses import dataclass

from rocktop_ray.live.messages import Applied, Ended, Notice, Pong, Started, Stats


@dataclass(frozen=True)
class Lost:
    """The connection broke; others are tried."""

    why: str


@dataclass(frozen=True)
class Resumed:
    """The stream goes on after so many seconds; ``again``: blocks that are sent a second time."""

    seconds: float
    again: int


Event = Started | Applied | Stats | Notice | Pong | Ended | Lost | Resumed
