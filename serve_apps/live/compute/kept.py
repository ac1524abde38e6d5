"""Streams that an engine keeps between feeds, and what they look like as bytes with the voices that they need."""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import asdict

from rocktop_ray.errors import StateMissingError, StreamStateError
from rocktop_ray.live.converter import LiveConverter
from rocktop_ray.live.state import join, split
from rocktop_ray.live.stream import LiveStream, voices_in
from serve_apps.live.compute.batcher import Run
from serve_apps.live.engine import Feed
from serve_apps.orders import VoiceRef


class KeptStreams:
    """At most ``most`` streams, each with the feed that it was given last, done or not; the longest unused goes first.

    Used by one thread.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._runs: OrderedDict[str, tuple[int, Run]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._runs)

    def put(self, session: str, seq: int, run: Run) -> None:
        """Keep the stream of a feed that takes it to before block ``seq``."""
        self._runs[session] = (seq, run)
        self._runs.move_to_end(session)
        while len(self._runs) > self._most:
            self._runs.popitem(last=False)

    def last(self, feed: Feed) -> Run | None:
        """What the feed goes on from; None if that is not here."""
        seq, run = self._runs.get(feed.session, (-1, None))
        if run is None or seq != feed.seq or (run.stream.rate, run.stream.multiple) != (feed.rate, feed.multiple):
            return None
        return run

    def drop(self, session: str, run: Run | None = None) -> None:
        """Keep it no longer; where ``run`` is given, only if that was its last."""
        if run is None or self._runs.get(session, (-1, None))[1] is run:
            self._runs.pop(session, None)


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
