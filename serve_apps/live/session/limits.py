"""The bounds of live sessions, in one place."""

from __future__ import annotations

from dataclasses import dataclass

from serve_apps.config import LiveConfig


@dataclass(frozen=True)
class LiveLimits:
    """Seconds, unless said otherwise."""

    slack: float = 0.02
    """That an answer may come after the next block was due."""
    window: float = 0.5
    """Of audio that may wait for its answer, where blocks have deadlines; at least two blocks."""
    free_window: float = 4.0
    """The same where they have none: then nothing more is read."""
    skip: float = 0.2
    """Pieces that wait longer, and whose blocks are answered, go past the networks."""
    skip_lost: float = 1.0
    """The same after a replica was lost: pieces since the last save are made again if they are not older."""
    recover: float = 20.0
    """For that a lost replica is replaced; a session waits no longer."""
    hang: float = 20.0
    """That the engine may take for one call."""
    start: float = 10.0
    """For the first message."""
    silence: float = 30.0
    """Without any message."""
    unread: float = 5.0
    """That the client may let its answers lie."""
    unread_bytes: int = 16 << 20
    beyond: float = 20.0
    """Of audio that may lie here of a client that is not read from: not every server lets TCP hold it back."""
    resume: float = 30.0
    """That a session waits for its client."""
    ahead: float = 2.0
    """By which a live client may be ahead of real time: what a network holds back, and sends at once."""
    texts: tuple[float, float] = (50.0, 400.0)
    """Text messages: in a second, and at once."""
    blocks: float = 4.0
    """Live, blocks in a second for each that the usual length makes: as many are what a session was let in for."""
    most_blocks: float = 1000.0
    """In a second, whatever the usual length."""
    voices: tuple[float, float] = (1.0, 5.0)
    """Changes of the voice, in a second and at once: each has several voices computed for a while."""
    most_waiting: int = 4000
    """Blocks that may wait for their answer."""

    def window_of(self, live: bool, block: float) -> float:
        """Seconds of audio that may wait for answers: two blocks at least, and live what may be late."""
        return max(self.window, 2 * block + self.slack) if live else max(self.free_window, 2 * block)

    def block_budget(self, usual: float, catch_up: float) -> tuple[float, float]:
        """Blocks in a second, and at once, of a client whose usual blocks are ``usual`` a second; ``catch_up``: seconds
        of audio that may come at once.
        """
        each = min(self.most_blocks, self.blocks * usual)
        return each, max(16.0, each * (self.ahead + catch_up))

    def backlog_of(self, bytes_per_second: int) -> float:
        """Bytes that may lie here; headers are a small part of blocks of a sensible length."""
        return 1.25 * self.beyond * bytes_per_second

    @classmethod
    def of(cls, config: LiveConfig) -> LiveLimits:
        """What the configuration says."""
        slack = config.slack_ms / 1e3
        return cls(slack=slack, skip=cls.skip + slack, resume=config.resume_seconds)
