"""Between a live session and who computes for it: what is sent, what comes back, and who lets sessions in.

The session owns its state. An engine may keep recent states to save bytes, but any process of it can go on from the
state that the session sends along, and gives what the other would have given, to the bit.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from rocktop_ray.protocols import Array
from rocktop_ray.settings import ConvertSettings
from serve_apps.orders import VoiceRef


@dataclass(frozen=True)
class Piece:
    """A block of a stream, and how it is to be converted."""

    samples: Array
    """Mono ``[samples]`` in the client's rate."""
    settings: ConvertSettings
    bypass: bool = False
    """The take itself comes back, equally late."""
    skip: bool = False
    """The same without any network, to catch up: cheaper than ``bypass``, and heard as a gap in the conversion."""


@dataclass(frozen=True)
class Feed:
    """The next pieces of a session.

    The pieces of one session are fed in order, one feed after the other: the next one when the last has ended, or
    where ``Fed.queues`` said so, while it is still under way.
    """

    session: str
    voice: VoiceRef
    """Another one than before: the stream goes over to it. ``LiveEngine.open`` made it ready."""
    rate: int
    """Hz of the samples."""
    multiple: int
    """What the length of every piece is a multiple of; the same for the whole session."""
    seq: int
    """Number of the first piece; the others follow it."""
    pieces: tuple[Piece, ...]
    state: bytes | None = None
    """The state before ``seq``, as a ``Fed`` brought it. None: the engine still has it, or ``seq`` is 0."""
    want_state: bool = False
    """Whether the state after the last piece is to come back."""
    live: bool = True
    """Has a deadline: goes before those that have none."""


@dataclass(frozen=True)
class Fed:
    """What became of a ``Feed``."""

    waves: tuple[Array, ...]
    """One for each piece, as long as it is."""
    delays: tuple[int, ...]
    """Samples in the client's rate by which each piece is late from its beginning on. After a change of voice it is
    the old voice's until the new one has taken over.
    """
    state: bytes | None
    """After the last piece, if it was wanted."""
    seconds: float
    """Spent on computing, by all who were computed together with it."""
    waited: float
    """Seconds before its computing began."""
    replica: str
    """Who did it; changes when a session moves."""
    together: int = 1
    """Most sessions that were computed at once with it, itself included."""
    queues: bool = False
    """Whether the next feed may come before this one is answered: both go to one process, in order."""


@dataclass(frozen=True)
class HopCost:
    """What a session costs on this machine: ``fixed + each * n`` seconds for one hop of ``n`` sessions of a voice at
    once, and ``formant`` of each besides.
    """

    voice: str
    """``VoiceRef.id``."""
    fixed: float
    each: float
    hop: float
    """Seconds of audio in a hop."""
    blocks: float = 0.0
    """Blocks that a session of it sends in a second."""
    formant: float = 0.0
    """Seconds of a hop for moving this session's formants, which is not computed together; 0 where they stay."""


@dataclass(frozen=True)
class StreamFacts:
    """What a stream of a voice will be like."""

    delay: int
    """Samples in the client's rate by which what comes back is older than what went in, once this voice is heard."""
    hop: int
    """Samples in the client's rate that are computed at a time, rounded."""
    exact: bool
    """Whether every stage has an exact streaming form; otherwise some run over windows."""
    settings_default: ConvertSettings
    """The voice's own."""
    cost: HopCost
    """Of a stream with these settings."""


class LiveEngine(Protocol):
    """Whoever computes: in this process (``local.LocalEngine``) or on Ray Serve (``remote.ServeEngine``)."""

    async def open(self, voice: VoiceRef, rate: int, multiple: int, settings: ConvertSettings) -> StreamFacts:
        """Make a voice ready, wherever sessions may go, and tell what a stream of it is like. May take seconds.

        Raises SettingsError for a voice that has no streaming form, or settings or a rate that a stream cannot follow;
        VoiceNotFoundError and what else opening a voice raises; StageLostError.
        """
        ...

    async def feed(self, feed: Feed, spare: Feed | None = None) -> Fed:
        """Compute. Pieces longer than the hop are cut, so that a long one holds up nobody for long.

        spare: the same from a state on that is known, maybe with pieces before, for a process that has nothing of the
        session: sent to another one where the first gives no sign of life. What comes back belongs to ``feed``.

        Cancelling is allowed; the state of the session is then lost, if the caller has none of before.

        Raises StateMissingError where there is no state before ``seq`` (send it, with the pieces since);
        StageLostError where the process died (the same; at once, there may be another one); SettingsError, AudioError;
        StreamStateError for a state that does not fit.
        """
        ...

    async def forget(self, session: str) -> None:
        """The session is over: drop what is kept for it. Best effort; raises nothing."""
        ...


@dataclass(frozen=True)
class House:
    """How full it is, for statistics."""

    sessions: int
    """Sessions that sit, all gateways together."""
    load: float
    """Share of the time that is promised to live sessions, 0..1."""
    wanted: bool = False
    """Another connection wants this session: park it, ``leave(keep=math.inf)``, close with 4409."""


class Desk(Protocol):
    """Lets sessions in, and keeps those whose connection was lost. ``sitting`` is a random name of the connection's
    own, so that the same session on two connections can be told apart.

    A new connection: ``admit``, ``renew`` every ``RENEW_SECONDS``, ``leave``. A resumed one: ``take``, then ``admit``.
    """

    async def admit(self, session: str, voice: VoiceRef, rate: int, live: bool, *, sitting: str, cost: HopCost) -> None:
        """Let a session in, or let one that sits change its voice, or settings that cost something (``formant``).
        ``cost`` is what ``LiveEngine.open`` told for the settings that it is to have. ``live`` False: without
        deadline, no time is promised to it; such sessions are only counted.

        Raises BusyError (``retry_after``) if its deadlines, or those of others, could not be kept; if it sat before,
        it goes on sitting at the old cost. Raises SessionTakenError if another connection has it.
        """
        ...

    async def renew(self, session: str, sitting: str, *, late: float = 0.0) -> House:
        """Still here. ``late``: share of the blocks since the last time that were answered late.

        Raises SessionTakenError if another connection has it by now; SessionGoneError if the session was given up (no
        ``renew`` for ``LEASE_SECONDS``) and there was no room to let it in again.
        """
        ...

    async def leave(self, session: str, sitting: str, *, keep: float = 0.0) -> None:
        """Free the seat. ``keep``: seconds for which what was parked stays, ``live.resume_seconds`` at most. Raises
        nothing.
        """
        ...

    async def park(self, session: str, secret: str, state: bytes, *, sitting: str) -> None:
        """Keep ``state`` in place of what was parked before; allowed at any time while the connection has the session.

        Raises SessionTakenError; StorageError if it is larger than may be kept.
        """
        ...

    async def take(self, session: str, secret: str, *, sitting: str) -> bytes:
        """What was parked last. The session is this connection's from now on; if another one sits there, it is asked
        to park first, for at most ``TAKE_SECONDS``. What was parked stays until it is parked anew.

        Raises SessionGoneError for an unknown session or a wrong secret, which are not told apart.
        """
        ...


RENEW_SECONDS = 1.0
LEASE_SECONDS = 6.0
TAKE_SECONDS = 2.5
