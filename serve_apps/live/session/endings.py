"""How a connection ends: which code says so, and whether its session can be resumed."""

from __future__ import annotations

import math
from dataclasses import dataclass

from rocktop_ray.errors import (
    BusyError,
    ProtocolError,
    RocktopError,
    SessionGoneError,
    SessionTakenError,
    SettingsError,
    StreamStateError,
    VoiceChangedError,
    VoiceNotFoundError,
)
from rocktop_ray.live.messages import CloseCode
from serve_apps.live.session.wire import GoneError


class DrainingError(RocktopError):
    """This gateway is about to stop; another one goes on with the session."""

    code, stage, http_status, exit_code, retryable = "draining", "live", 503, 75, True


class Finished(Exception):  # noqa: N818 - nothing went wrong
    """The client has ended its stream, and has got all of it."""


@dataclass(frozen=True)
class Ending:
    """``code`` is None where nobody is there to be told."""

    code: CloseCode | None
    keep: float
    """Seconds for which the session may go on with another connection."""
    outcome: str
    """For metrics and logs: ended, parked or failed."""


def ending_of(error: BaseException) -> Ending:
    """What an error, or ``Finished``, means for the connection and for the session."""
    if isinstance(error, Finished):
        return Ending(CloseCode.ENDED, _UNREAD_SECONDS, "ended")
    if isinstance(error, GoneError):
        return Ending(None, math.inf, "parked")
    code = close_code(error)
    if code in _OVER:
        return Ending(code, 0.0, "failed")
    return Ending(code, math.inf, "parked")


def close_code(error: BaseException) -> CloseCode:
    """The closing code that says what an error means."""
    for kind, code in _CODES:
        if isinstance(error, kind):
            return code
    if not isinstance(error, RocktopError):
        return CloseCode.FAULT
    if error.http_status in (502, 503, 504, 507):
        return CloseCode.UNAVAILABLE
    return CloseCode.of_status(error.http_status)


_OVER = {CloseCode.BAD_MESSAGE, CloseCode.SETTINGS, CloseCode.GONE, CloseCode.VOICE, CloseCode.KEY, CloseCode.ORIGIN}
"""After these nobody comes back."""
_UNREAD_SECONDS = 15.0
"""The last answers may be lost on their way; a client finds out after ``connection._SILENCE`` at most."""
_CODES: tuple[tuple[type[BaseException], CloseCode], ...] = (
    (DrainingError, CloseCode.DRAINING),
    (ProtocolError, CloseCode.BAD_MESSAGE),
    (SessionTakenError, CloseCode.IN_USE),
    (SessionGoneError, CloseCode.GONE),
    (StreamStateError, CloseCode.GONE),
    (VoiceChangedError, CloseCode.GONE),
    (VoiceNotFoundError, CloseCode.VOICE),
    (SettingsError, CloseCode.SETTINGS),
    (BusyError, CloseCode.NO_CAPACITY),
)
