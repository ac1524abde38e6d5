"""The messages of ``/v1/stream``, version 1, as values, and the limits. ``docs/stream.md`` says what they mean."""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from enum import IntEnum, IntFlag
from typing import Any, Literal, get_args

from rocktop_ray.protocols import Array

VERSION = 1
PATH = "/v1/stream"
Format = Literal["f32", "s16"]
Pace = Literal["live", "free"]
FORMATS: tuple[Format, ...] = get_args(Format)
PACES: tuple[Pace, ...] = get_args(Pace)
LEAST_RATE, MOST_RATE = 8_000, 192_000
MOST_BLOCK_SECONDS = 1.0
MOST_TEXT = 16 * 1024
"""Bytes of a text message."""
MOST_SEQ = 2**32 - 1
MOST_POSITION = 2**53 - 1
"""So that a client whose numbers are float64 can count, too."""
HEADER = struct.Struct("<BBHIQ")
MOST_BINARY = HEADER.size + MOST_RATE * 4
"""Bytes of a binary message."""
MOST_REASON = 120
"""Bytes of the reason in a closing frame."""


class CloseCode(IntEnum):
    """Why a connection is closed. 4000 and more are 4000 + the HTTP status that says the same."""

    ENDED = 1000
    DRAINING = 1001
    BAD_MESSAGE = 4400
    KEY = 4401
    ORIGIN = 4403
    VOICE = 4404
    SILENT = 4408
    IN_USE = 4409
    GONE = 4410
    TOO_MUCH = 4413
    SETTINGS = 4422
    NO_CAPACITY = 4429
    FAULT = 4500
    UNAVAILABLE = 4503

    @classmethod
    def of_status(cls, status: int) -> CloseCode:
        """The code for an error of an HTTP status; FAULT where there is none of its own."""
        return cls(4000 + status) if 4000 + status in set(cls) else cls.FAULT


class Flags(IntFlag):
    """What a block of output is. No flag: the converted take."""

    NONE = 0
    BYPASS = 1
    """The take itself, as asked for."""
    LATE = 2
    """The take itself, or faded to it or from it: the server was late."""
    LOST = 4
    """Made again, or concealed, after a replica was lost."""
    LAST = 8
    """Of the flush: behind the last block of input."""


@dataclass(frozen=True, eq=False)
class Audio:
    """A block, mono.

    Attributes:
        seq: 0, 1, 2... of the blocks of input; a block of output has that of the block that it answers, and the
            blocks of the flush go on counting.
        position: index of the first sample in the client's rate, from 0, without gaps.
        samples: float32 ``[n]``, full scale ±1, finite; n is at least 1.
    """

    seq: int
    position: int
    samples: Array
    flags: Flags = Flags.NONE

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Audio) and (self.seq, self.position, self.flags, self.samples.tobytes()) == (
            other.seq,
            other.position,
            other.flags,
            other.samples.tobytes(),
        )


@dataclass(frozen=True)
class Start:
    """Client: begin a session. ``block``: samples of the usual block; ``settings``: over the voice's own."""

    voice: str
    rate: int
    format: Format = "f32"
    block: int = 1920
    pace: Pace = "live"
    settings: dict[str, Any] = field(default_factory=dict)
    bypass: bool = False
    key: str | None = field(default=None, repr=False)


@dataclass(frozen=True)
class Resume:
    """Client: go on with a session whose connection broke. ``received``: seq of the last output that came, or -1."""

    session: str
    secret: str = field(repr=False)
    received: int = -1
    key: str | None = field(default=None, repr=False)


@dataclass(frozen=True)
class Change:
    """Client: other settings from the next block on; those left out stay."""

    settings: dict[str, Any]


@dataclass(frozen=True)
class ChangeVoice:
    """Client: another voice."""

    voice: str


@dataclass(frozen=True)
class Bypass:
    """Client: the take itself from the next block on, or the converted again."""

    on: bool


@dataclass(frozen=True)
class Ping:
    """Client: answer me. ``at`` comes back as it is."""

    at: Any = None


@dataclass(frozen=True)
class End:
    """Client: no more audio comes; flush and close."""


@dataclass(frozen=True)
class Started:
    """Server: the session stands, or goes on.

    Attributes:
        delay: samples by which output is later than input, at the client's rate.
        window: seconds of audio that may be on the way unanswered.
        next: seq of the block that the server wants next.
        settings: all of them, as they hold for that block.
        exact: whether the stream equals a conversion of the whole.
    """

    session: str
    secret: str = field(repr=False)
    voice: str
    rate: int
    delay: int
    delay_ms: float
    window: float
    next: int
    settings: dict[str, Any]
    exact: bool = False


@dataclass(frozen=True)
class Applied:
    """Server: a change was taken. ``seq``: of the first block that it holds for."""

    settings: dict[str, Any]
    voice: str
    bypass: bool
    seq: int
    delay: int


@dataclass(frozen=True)
class Pong:
    """Server: the answer to Ping."""

    at: Any = None


@dataclass(frozen=True)
class Spread:
    """Milliseconds."""

    p50: float
    p95: float
    max: float


@dataclass(frozen=True)
class Stats:
    """Server, every second. ``kept``: seq up to which no input is needed again, should the connection break."""

    seconds: float
    seq: int
    kept: int
    compute_ms: Spread
    queue_ms: float
    lateness_ms: float
    late: int
    lost: int
    bypassed: int
    load: float
    sessions: int


@dataclass(frozen=True)
class Notice:
    """Server: something to know. ``code``: draining, overloaded, recovered, replica-lost; others may come."""

    code: str
    message: str
    seconds: float | None = None


@dataclass(frozen=True)
class Problem:
    """Server: why it closes the connection now; members of RFC 9457 beside ours."""

    code: str
    title: str
    detail: str
    status: int = 500
    stage: str = "live"
    request_id: str | None = None
    retry_after: float | None = None


@dataclass(frozen=True)
class Ended:
    """Server: all is flushed. ``samples`` of input; counts of blocks."""

    samples: int
    late: int
    lost: int


@dataclass(frozen=True)
class Unknown:
    """Server: a message of a later version; pass over it."""

    type: str


ClientMessage = Audio | Start | Resume | Change | ChangeVoice | Bypass | Ping | End
ServerMessage = Audio | Started | Applied | Pong | Stats | Notice | Problem | Ended | Unknown
TextMessage = (
    Start | Resume | Change | ChangeVoice | Bypass | Ping | End
    | Started | Applied | Pong | Stats | Notice | Problem | Ended
)  # fmt: skip
TYPES: dict[type[Any], str] = {
    Start: "start",
    Resume: "resume",
    Change: "settings",
    ChangeVoice: "voice",
    Bypass: "bypass",
    Ping: "ping",
    End: "end",
    Started: "started",
    Applied: "applied",
    Pong: "pong",
    Stats: "stats",
    Notice: "notice",
    Problem: "error",
    Ended: "ended",
}
"""The ``type`` of each text message."""
