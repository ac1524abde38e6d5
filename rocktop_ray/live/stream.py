"""One live stream at a client's own rate: blocks of any size in, blocks of the same size out, equally late."""

from __future__ import annotations

import json
from collections.abc import Sequence
from copy import copy
from dataclasses import asdict
from typing import Any

import numpy as np

from rocktop_ray.errors import AudioError, SettingsError, StreamStateError
from rocktop_ray.live.converter import LiveConverter
from rocktop_ray.live.lane import Lane, LaneRun, LaneState
from rocktop_ray.live.state import join, pack, split, unpack
from rocktop_ray.protocols import TAKE_RATE, Array
from rocktop_ray.settings import ConvertSettings

MOST_SECONDS = 10
"""Of a block."""
LOWEST_RATE, HIGHEST_RATE = 8_000, 192_000
_FADE_SECONDS = 0.02


class LiveStream:
    """Feeds a client's stream through a voice, or through two while one takes over from the other.

    Args:
        converter: the voice; shared by any number of streams.
        settings: how to convert; may be changed between blocks.
        rate: the client's samples per second, 8000..192000; both ways.
        multiple: what every block's length is a multiple of, in the client's samples. The more it has in common with
            the converter's hop, the shorter the delay. 1 is any length.

    Raises SettingsError for settings, a rate or a multiple that a stream cannot follow.
    """

    def __init__(
        self,
        converter: LiveConverter,
        settings: ConvertSettings | None = None,
        *,
        rate: int = TAKE_RATE,
        multiple: int = 1,
    ) -> None:
        if not LOWEST_RATE <= rate <= HIGHEST_RATE:
            raise SettingsError(f"a stream's rate is {LOWEST_RATE} to {HIGHEST_RATE} Hz, not {rate}")
        if not 1 <= multiple <= rate * MOST_SECONDS:
            raise SettingsError(f"the blocks' lengths must be a multiple of 1 or more samples, not {multiple}")
        self.rate, self.multiple = rate, multiple
        self._wanted: tuple[ConvertSettings, ...] = (settings or ConvertSettings(),)
        """Of each voice: one that is about to be left goes on as it was."""
        self.bypass = False
        """Whether the take itself goes through, equally late; set it between blocks."""
        converter.check(self.settings)
        self._lanes = [Lane(converter, rate, multiple)]
        self._states: list[LaneState] = [self._lanes[0].begin()]
        self._untils: tuple[int, ...] = ()
        """The samples at which the second voice, and the third, begin to take over, where there are more than one."""

    @property
    def converter(self) -> LiveConverter:
        """The voice that blocks to come will be heard in, in the end."""
        return self._lanes[-1].converter

    @property
    def settings(self) -> ConvertSettings:
        """Those of the voice that blocks to come will be heard in, in the end; of the next block where it is the only
        one.
        """
        return self._wanted[-1]

    @property
    def delay(self) -> int:
        """Client's samples by which what comes out is later than what went in. Constant for a voice; while another
        one takes over, it is that of the one that is still heard.
        """
        return self._lanes[0].delay

    @property
    def samples(self) -> int:
        """Client's samples taken in so far."""
        return self._states[0].samples

    @property
    def changing(self) -> bool:
        """Whether another voice is about to take over."""
        return len(self._lanes) > 1

    def change(self, settings: ConvertSettings) -> None:
        """Convert the blocks to come with other settings; a voice that another one is about to take over from keeps its
        own. Raises SettingsError; the old ones then stay.
        """
        self.converter.check(settings)
        self._wanted = (*self._wanted[:-1], settings)

    def switch(self, converter: LiveConverter, settings: ConvertSettings | None = None) -> int:
        """Go over to another voice -> the delay that holds from then on.

        It first hears itself in, unheard, beside the old one, and then takes over within 20 ms. If another change is
        under way, its voice is left out, or, if it has begun to take over, goes on doing so. Raises SettingsError.
        """
        settings = settings or self.settings
        converter.check(settings)
        while self.changing and self.samples <= self._untils[-1]:
            self._lanes, self._states, self._untils = self._lanes[:-1], self._states[:-1], self._untils[:-1]
            self._wanted = self._wanted[:-1]
        lane, old = Lane(converter, self.rate, self.multiple), self._lanes[-1]
        if converter is old.converter:
            self._wanted = (*self._wanted[:-1], settings)
            return old.delay
        begun, warming = lane.beside(old, self._states[-1])
        self._untils += (self.samples + lane.delay - (-warming * self.rate // 100),)
        self._lanes, self._states = [*self._lanes, lane], [*self._states, begun]
        self._wanted += (settings,)
        return lane.delay

    def fork(self) -> LiveStream:
        """Another stream that goes on from here. Next to free: what both hold is never changed in place."""
        other = copy(self)
        other._lanes, other._states = list(self._lanes), list(self._states)
        return other

    def feed(self, block: Array) -> Array:
        """``[samples]`` at the client's rate -> as many, ``delay`` samples late. Raises AudioError; the stream then
        goes on as if the block had not come.
        """
        return feed_many([self], [block])[0]

    def skip(self, block: Array) -> Array:
        """The same without any network: the take, equally late, at next to no cost. For blocks that come too late."""
        return feed_many([self], [block], [True])[0]

    def flush(self) -> Array:
        """The last ``delay`` samples, as if silence followed. The stream itself stays as it was."""
        kept = self._lanes, self._states, self._untils, self._wanted
        total, parts = self.delay, [np.zeros(0, np.float32)]
        try:
            most = max(1, self.rate // self.multiple) * self.multiple
            while sum(map(len, parts)) < total:
                missing = -(-(total - sum(map(len, parts))) // self.multiple) * self.multiple
                parts.append(self.feed(np.zeros(min(missing, most), np.float32)))
        finally:
            self._lanes, self._states, self._untils, self._wanted = kept
        return np.concatenate(parts)[:total]

    def state(self) -> bytes:
        """Everything that another stream needs to go on from here: of the same voices, rate and ``multiple``."""
        head = {
            "rate": self.rate,
            "multiple": self.multiple,
            "voices": [lane.converter.name for lane in self._lanes],
            "until": self._untils,
            "bypass": self.bypass,
            "settings": asdict(self.settings),
            "leaving": [asdict(settings) for settings in self._wanted[:-1]],
        }
        return join([json.dumps(head, separators=(",", ":")).encode(), *map(pack, self._states)])

    def restore(self, state: bytes, *coming: LiveConverter) -> None:
        """Go on from ``state``: what comes out is what the other stream would have given, to the bit.

        ``coming`` are the voices that were about to take over, if ``voices_in(state)`` names more than one. Raises
        StreamStateError if it is not a state of a stream like this; this stream then stays as it was.
        """
        head, parts = _head(state)
        lanes = [self._lanes[0], *(Lane(each, self.rate, self.multiple) for each in coming)]
        names = [lane.converter.name for lane in lanes]
        if (head.get("rate"), head.get("multiple"), head.get("voices")) != (self.rate, self.multiple, names):
            raise StreamStateError("the state is one of a stream of another voice, rate or block length")
        ends, bypass = head.get("until"), head.get("bypass")
        if not isinstance(ends, list) or [type(until) for until in ends] != [int] * len(coming):
            raise StreamStateError("the state of the stream is damaged")
        if len(parts) != len(lanes) or type(bypass) is not bool:
            raise StreamStateError("the state of the stream is damaged")
        states = [unpack(part, lane.begin()) for part, lane in zip(parts, lanes, strict=True)]
        for lane, lane_state in zip(lanes, states, strict=True):
            lane.check(lane_state)
        if len({lane_state.samples for lane_state in states}) > 1:
            raise StreamStateError("the state of the stream holds numbers that do not go together")
        try:
            held = [*head.get("leaving", []), head.get("settings", {})]
            wanted = tuple(ConvertSettings.from_mapping(values) for values in held)
            for lane, settings in zip(lanes, wanted, strict=True):
                lane.converter.check(settings)
        except (TypeError, ValueError, SettingsError) as error:
            raise StreamStateError(f"the state of the stream holds settings that cannot be used: {error}") from error
        self._lanes, self._states, self._untils = lanes, states, tuple(ends)
        self._wanted, self.bypass = wanted, bypass

    def _checked(self, block: Array) -> Array:
        if block.ndim != 1 or len(block) > self.rate * MOST_SECONDS:
            raise AudioError(f"a block is mono [samples], at most {MOST_SECONDS} s, not {list(block.shape)}")
        if len(block) % self.multiple:
            raise AudioError(f"this stream takes blocks of multiples of {self.multiple} samples, not {len(block)}")
        if not np.isfinite(block).all():
            raise AudioError("the block holds values that are not numbers")
        return np.clip(block, -8, 8).astype(np.float32)

    def _runs(self, block: Array) -> list[LaneRun]:
        lanes = zip(self._lanes, self._states, self._wanted, strict=True)
        return [LaneRun(lane, state, block, settings) for lane, state, settings in lanes]

    def _done(self, runs: Sequence[LaneRun]) -> Array:
        """Take over what became of a block."""
        states, waves = zip(*(run.done() for run in runs), strict=True)
        self._states = list(states)
        heard, fade = waves[0], round(_FADE_SECONDS * self.rate)
        for wave, until in zip(waves[1:], self._untils, strict=True):
            begun = self.samples - len(wave) - until
            shares = np.clip(np.arange(begun + 1, begun + 1 + len(wave)) / fade, 0, 1).astype(np.float32)
            heard = np.where(shares < 1, heard + (wave - heard) * shares, wave)
        while self.changing and self.samples >= self._untils[0] + fade:
            self._lanes, self._states, self._untils = self._lanes[1:], self._states[1:], self._untils[1:]
            self._wanted = self._wanted[1:]
        return heard


def feed_many(
    streams: Sequence[LiveStream], blocks: Sequence[Array], skip: Sequence[bool] | None = None
) -> list[Array]:
    """``feed`` (where ``skip``: ``skip``) of several streams at once -> what comes out of each.

    Hops of the same voice go through its networks together. Streams and blocks may differ in everything else. Raises
    AudioError for the first block that cannot be used; all streams then stay as they were.
    """
    rests = [False] * len(streams) if skip is None else skip
    runs = [stream._runs(stream._checked(block)) for stream, block in zip(streams, blocks, strict=True)]
    pending = [(stream, run, rest) for stream, own, rest in zip(streams, runs, rests, strict=True) for run in own]
    while pending:
        due = [(hop, *of) for of in pending if (hop := of[1].due()) is not None]
        pending = [of[1:] for of in due]
        voices: dict[int, list[tuple[Array, LiveStream, LaneRun, bool]]] = {}
        for each in due:
            voices.setdefault(id(each[2].converter), []).append(each)
        for together in voices.values():
            hops, owners, lanes, resting = zip(*together, strict=True)
            states, waves = lanes[0].converter.step_many(
                [run.stream for run in lanes],
                hops,
                [run.settings for run in lanes],
                [owner.bypass for owner in owners],
                resting,
            )
            for run, state, wave in zip(lanes, states, waves, strict=True):
                run.give(state, wave)
    return [stream._done(own) for stream, own in zip(streams, runs, strict=True)]


def voices_in(state: bytes) -> tuple[str, ...]:
    """Names of the voices (``LiveConverter.name``) that a stream's state is one of: one, or more where each is about to
    take over from the one before, at most three. Raises StreamStateError.
    """
    voices = _head(state)[0].get("voices")
    if not isinstance(voices, list) or not all(isinstance(name, str) for name in voices) or not 1 <= len(voices) <= 3:
        raise StreamStateError("the state of the stream is damaged")
    return tuple(voices)


def _head(state: bytes) -> tuple[dict[str, Any], list[bytes]]:
    """What a state says of itself, and the states of its lanes."""
    head, *parts = split(state)
    try:
        values = json.loads(head)
    except (ValueError, RecursionError) as error:
        raise StreamStateError("the state of the stream is damaged") from error
    if not isinstance(values, dict):
        raise StreamStateError("the state of the stream is damaged")
    return values, parts
