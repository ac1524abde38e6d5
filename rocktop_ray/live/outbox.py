"""What a client of a live stream has to say, in order, kept until the server needs it no more.

Changes of settings lie between the blocks where they were made. After a lost connection the server names the block from
which it wants all again; changes say how things are to be, not by how much, so one that comes twice does no harm.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from rocktop_ray.errors import ProtocolError
from rocktop_ray.live.messages import MOST_SEQ, Audio, Flags, Format, TextMessage
from rocktop_ray.live.protocol import pack, pack_audio
from rocktop_ray.protocols import Array


@dataclass(frozen=True)
class Entry:
    """A message. ``seq`` of a block is its own, of any other message that of the block after it."""

    seq: int
    position: int
    samples: int
    data: bytes | str


class Outbox:
    """Messages of one session, and which block is to be answered next.

    Args:
        format: of the blocks.
        most: samples that are kept for a resume at least; when there are more the oldest are given up.
    """

    def __init__(self, format: Format, most: int) -> None:
        self._format, self._most = format, most
        self._entries: deque[Entry] = deque()
        self._unsent = 0
        """Of ``_entries``, counted from the end."""
        self._lengths: deque[int] = deque()
        """Of the blocks that are not answered yet."""
        self._gone = 0
        """Seq of the first block that could be sent again."""
        self._kept_samples = 0
        self.next_seq = 0
        """Of the block to come."""
        self.position = 0
        """Samples put in so far."""
        self._sent_position = 0
        self.received = -1
        """Seq of the last block that was answered."""
        self._answered_position = 0

    @property
    def waiting(self) -> int:
        """Samples that were not sent yet."""
        return max(0, self.position - self._sent_position)

    @property
    def unanswered(self) -> int:
        """Samples that were sent and have no answer yet."""
        return max(0, self._sent_position - self._answered_position)

    @property
    def untouched(self) -> bool:
        """Whether nothing was answered, and all can be sent again."""
        return self.received < 0 and not self._gone

    def put(self, samples: Array) -> None:
        """Append a block."""
        if self.next_seq > MOST_SEQ:
            raise ProtocolError("the stream has as many blocks as it can count; start another")
        data = pack_audio(Audio(self.next_seq, self.position, samples), self._format)
        self._append(Entry(self.next_seq, self.position, len(samples), data))
        self._lengths.append(len(samples))
        self.next_seq += 1
        self.position += len(samples)
        self._kept_samples += len(samples)
        while self._kept_samples > self._most and len(self._entries) > self._unsent:
            self._drop()

    def say(self, message: TextMessage) -> None:
        """Append another message; it holds from the next block on."""
        self._append(Entry(self.next_seq, self.position, 0, pack(message)))

    def take(self, window: int) -> Entry | None:
        """The next message to send, if not more than ``window`` samples are unanswered then. A block always may go
        when none is unanswered.
        """
        if not self._unsent:
            return None
        entry = self._entries[-self._unsent]
        if entry.samples and self.unanswered and self.unanswered + entry.samples > window:
            return None
        self._unsent -= 1
        self._sent_position = entry.position + entry.samples
        return entry

    def answer(self, audio: Audio) -> bool:
        """Check a block of output against what was sent. False: it has come before. Raises ProtocolError."""
        if audio.seq <= self.received:
            return False
        flushed = Flags.LAST in audio.flags
        if audio.seq != self.received + 1 or audio.position != self._answered_position:
            raise ProtocolError(
                f"the server sent block {audio.seq} at {audio.position}; "
                f"{self.received + 1} at {self._answered_position} comes next"
            )
        if flushed == bool(self._lengths):
            what = "flushed before all blocks were answered" if flushed else "answered more blocks than were sent"
            raise ProtocolError(f"the server {what}")
        if not flushed and self._lengths.popleft() != len(audio.samples):
            raise ProtocolError(f"the server answered block {audio.seq} with another length")
        self.received = audio.seq
        self._answered_position += len(audio.samples)
        return True

    def keep(self, kept: int) -> None:
        """The server needs nothing up to block ``kept`` again. Raises ProtocolError."""
        if kept >= self.next_seq:
            raise ProtocolError(f"the server keeps block {kept}, which was not sent")
        while len(self._entries) > self._unsent and self._entries[0].seq <= kept:
            self._drop()

    def rewind(self, seq: int) -> None:
        """Send everything again from block ``seq`` on. Raises ProtocolError if it is not kept any more."""
        if not self._gone <= seq <= self.next_seq:
            raise ProtocolError(
                f"the server wants to go on from block {seq}; {self._gone} to {self.next_seq} can be sent"
            )
        self._unsent = sum(entry.seq >= seq for entry in self._entries)
        self._sent_position = self._entries[-self._unsent].position if self._unsent else self.position

    def _append(self, entry: Entry) -> None:
        self._entries.append(entry)
        self._unsent += 1

    def _drop(self) -> None:
        entry = self._entries.popleft()
        self._kept_samples -= entry.samples
        self._gone = max(self._gone, entry.seq + bool(entry.samples))
