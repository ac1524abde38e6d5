"""How a connection of a live stream ended: as an error to raise, and whether the stream can go on over another one."""

from __future__ import annotations

import random
import time
from dataclasses import dataclass

from rocktop_ray.errors import (
    BusyError,
    ProtocolError,
    RocktopError,
    SessionGoneError,
    SessionTakenError,
    SettingsError,
    StageLostError,
    StreamLostError,
    StreamRefusedError,
    VoiceNotFoundError,
)
from rocktop_ray.live.messages import CloseCode, Problem

_KINDS: dict[int, tuple[type[RocktopError], str]] = {
    CloseCode.DRAINING: (StreamLostError, "the server is going away"),
    CloseCode.BAD_MESSAGE: (ProtocolError, "the server did not understand this client"),
    CloseCode.KEY: (StreamRefusedError, "the server wants an API key that it knows"),
    CloseCode.ORIGIN: (StreamRefusedError, "the server does not let this client in"),
    CloseCode.VOICE: (VoiceNotFoundError, "the server has no such voice"),
    CloseCode.SILENT: (StreamLostError, "the server heard nothing for too long, or was not listened to"),
    CloseCode.IN_USE: (SessionTakenError, "the session is used by another connection"),
    CloseCode.GONE: (SessionGoneError, "the server does not have this session any more"),
    CloseCode.TOO_MUCH: (StreamRefusedError, "more audio was sent than the server takes"),
    CloseCode.SETTINGS: (SettingsError, "the server refuses the settings"),
    CloseCode.NO_CAPACITY: (BusyError, "the server has no room for another stream"),
    CloseCode.FAULT: (RocktopError, "the server met a fault of its own"),
    CloseCode.UNAVAILABLE: (StageLostError, "what converts on the server is not available"),
}
_GO_ON = {
    *(1001, 1005, 1006, 1011, 1012, 1013, 1014),
    *(CloseCode.SILENT, CloseCode.NO_CAPACITY, CloseCode.FAULT, CloseCode.UNAVAILABLE),
}
"""Codes after which the session may still stand: without a closing frame, or by a proxy (RFC 6455 and its registry)."""

_WAITS = (0.1, 5.0)
"""Seconds before the second try to go on, and the longest; each wait is twice the one before."""


@dataclass(frozen=True)
class Ending:
    """A connection that is no more.

    Attributes:
        code: of the closing frame; 1006 if there was none.
        reason: from it.
        problem: the message before it, if there was one.
        retry_after: seconds after which another try makes sense.
    """

    code: int
    reason: str = ""
    problem: Problem | None = None

    @property
    def can_go_on(self) -> bool:
        """Whether a resume makes sense."""
        return self.code in _GO_ON

    @property
    def retry_after(self) -> float | None:
        """What the server says about when."""
        return None if self.problem is None else self.problem.retry_after

    def error(self) -> RocktopError:
        """The error that says so."""
        kind, words = _KINDS.get(self.code, (StreamLostError, f"the connection was closed ({self.code})"))
        said = (self.problem.detail or self.problem.title) if self.problem else self.reason
        message = f"{words}: {said}" if said else words
        made = BusyError(message, retry_after=self.retry_after or 5.0) if kind is BusyError else kind(message)
        if self.problem is not None:
            made.code, made.http_status, made.stage = self.problem.code, self.problem.status, self.problem.stage
        return made


class Retries:
    """When to try again to go on, from now on and for ``patience`` seconds.

    received: what the client had got when the connection broke: one that brings nothing new is another failed try.
    """

    def __init__(self, patience: float, received: int) -> None:
        self.received = received
        self._patience, self._began, self._wait = patience, time.monotonic(), _WAITS[0]

    @property
    def seconds(self) -> float:
        """Since the beginning."""
        return time.monotonic() - self._began

    def pause(self, error: RocktopError) -> float:
        """Seconds until the next try, after one that failed. Raises the error itself where another makes no sense, and
        StreamLostError at the end of patience.
        """
        # The server may not have missed the old connection yet.
        if not error.retryable and not isinstance(error, SessionTakenError):
            raise error
        pause = max(self._wait * random.uniform(0.8, 1.2), getattr(error, "retry_after", 0.0))  # noqa: S311
        self._wait = min(2 * self._wait, _WAITS[1])
        if self.seconds + pause > self._patience:
            raise StreamLostError(
                f"the stream could not go on within {self._patience:g} s after its connection broke: {error.message}"
            ) from error
        return pause
