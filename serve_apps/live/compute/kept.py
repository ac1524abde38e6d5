"""Streams that an engine keeps between feeds, and what they look like as bytes with the voices that they need."""

from __future__ import annotations

import asyncio
import json
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

from rocktop_ray.errors import StateMissingError, StreamStateError
from rocktop_ray.live.converter import LiveConverter
from rocktop_ray.live.state import join, split
from rocktop_ray.live.stream import LiveStream, voices_in
from serve_apps.live.compute.batcher import Run
from serve_apps.live.engine import Feed
from serve_apps.orders import VoiceRef

UNUSED_SECONDS = 10.0
"""After which a stream is given up. Who sings sends a block every second at least; one that comes later than that waits
some milliseconds for its state. Whose gateway has died, or who went to another replica, is missed after it.
"""


@dataclass
class _Kept:
    """A stream after the feed that it was given last."""

    seq: int
    """Of the next block."""
    run: Run
    used: float


class KeptStreams:
    """At most ``most`` streams, each with the feed that it was given last, done or not; the longest unused goes first,
    and after ``UNUSED_SECONDS`` in any case: a stream holds its voices.

    Used by one thread, on an event loop.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._streams: OrderedDict[str, _Kept] = OrderedDict()
        self._looks = float("-inf")
        """When somebody looks for unused ones next."""

    def __len__(self) -> int:
        return len(self._streams)

    def put(self, session: str, seq: int, run: Run) -> None:
        """Keep the stream of a feed that takes it to before block ``seq``."""
        loop = asyncio.get_running_loop()
        self._streams[session] = _Kept(seq, run, loop.time())
        self._streams.move_to_end(session)
        while len(self._streams) > self._most:
            self._streams.popitem(last=False)
        if self._looks < loop.time():
            self._watch(loop)

    def last(self, feed: Feed) -> Run | None:
        """What the feed goes on from; None if that is not here."""
        kept = self._streams.get(feed.session)
        if kept is None or kept.seq != feed.seq:
            return None
        stream = kept.run.stream
        return kept.run if (stream.rate, stream.multiple) == (feed.rate, feed.multiple) else None

    def drop(self, session: str, run: Run | None = None) -> None:
        """Keep it no longer; where ``run`` is given, only if that was its last."""
        kept = self._streams.get(session)
        if kept is not None and run in (None, kept.run):
            del self._streams[session]

    def clear(self) -> None:
        """Keep nothing."""
        self._streams.clear()

    def _watch(self, loop: asyncio.AbstractEventLoop) -> None:
        pause = UNUSED_SECONDS / 2
        self._looks = loop.time() + 2 * pause  # a loop that has ended looks no more, one that is busy does so late
        loop.call_later(pause, self._look, loop)

    def _look(self, loop: asyncio.AbstractEventLoop) -> None:
        now, self._looks = loop.time(), float("-inf")
        for session, kept in list(self._streams.items()):
            if not kept.run.future.done():  # a long one
                kept.used = now
            elif now - kept.used > UNUSED_SECONDS:
                del self._streams[session]
        if self._streams:
            self._watch(loop)


def stream_of(
    feed: Feed, last: Run | None, opened: Mapping[str, LiveConverter], needed: Sequence[VoiceRef]
) -> LiveStream:
    """The stream that a feed goes on from: of its state, else the kept one, else a new one if it is the first.

    last: whose stream was kept. opened: converters by voice: the feed's, and those ``needed`` by its state, see
    ``split_state``. Raises StateMissingError, StreamStateError, SettingsError.
    """
    wanted, settings = opened[feed.voice.id], feed.pieces[0].settings
    for each in {piece.settings for piece in feed.pieces}:
        wanted.check(each)
    if feed.state is not None:
        held = [opened[ref.id] for ref in needed]
        stream = LiveStream(held[0], rate=feed.rate, multiple=feed.multiple)
        stream.restore(split_state(feed.state)[1], *held[1:])
    else:
        if last is None and feed.seq > 0:
            raise StateMissingError("the state of the stream is not here: send it along")
        stream = last.stream if last else LiveStream(wanted, settings, rate=feed.rate, multiple=feed.multiple)
    if stream.converter.name != wanted.name:
        stream.switch(wanted, settings)
    return stream


def join_state(stream: LiveStream, known: Mapping[str, VoiceRef]) -> bytes:
    """A stream as bytes. known: its voices by id."""
    state = stream.state()
    voices = [asdict(known[name]) for name in voices_in(state)]
    return join([json.dumps(voices, separators=(",", ":")).encode(), state])


def split_state(data: bytes) -> tuple[tuple[VoiceRef, ...], bytes]:
    """The voices that a state needs, and the state. Raises StreamStateError."""
    try:
        head, state = split(data)
        voices = tuple(VoiceRef(**members) for members in json.loads(head))
    except (ValueError, TypeError, RecursionError) as error:
        raise StreamStateError("the state of the session is damaged") from error
    if tuple(ref.id for ref in voices) != voices_in(state):
        raise StreamStateError("the state of the session names other voices than its stream")
    return voices, state
