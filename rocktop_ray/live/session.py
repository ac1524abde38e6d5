"""One live stream: blocks of any size in, blocks of the same size out, always equally late."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass, replace

import numpy as np

from rocktop_ray.errors import AudioError, SettingsError, StreamStateError
from rocktop_ray.live.converter import LiveConverter, LiveState
from rocktop_ray.live.state import pack, unpack
from rocktop_ray.protocols import Array
from rocktop_ray.settings import ConvertSettings

MOST_BLOCK = 48_000 * 10
"""Samples of the largest block: 10 s."""


@dataclass(frozen=True)
class _Kept:
    """All of a session."""

    stream: LiveState
    samples: int
    """Samples taken in so far."""
    waiting: int
    """Of ``held``, the first so many wait for their hop to be full; the others have been made, and wait to go out."""
    held: Array
    settings: str
    bypass: bool


class LiveSession:
    """Feeds a stream through a ``LiveConverter`` and keeps its state.

    Args:
        converter: the voice; shared by any number of sessions.
        settings: how to convert; may be changed between blocks.
        multiple: what every block's length is a multiple of, in samples. The more it has in common with the converter's
            hop, the shorter the delay. 1 is any length.

    Raises SettingsError for settings that a stream cannot follow.
    """

    def __init__(self, converter: LiveConverter, settings: ConvertSettings | None = None, *, multiple: int = 1) -> None:
        if multiple < 1:
            raise SettingsError(f"the blocks' lengths must be a multiple of 1 or more samples, not {multiple}")
        self._converter, self._multiple = converter, multiple
        self._held = converter.hop - math.gcd(converter.hop, multiple)
        self.delay = converter.delay + self._held
        """Samples at 48 kHz by which what comes out is later than what went in. It never changes."""
        settings = settings or ConvertSettings()
        converter.check(settings)
        self._settings = settings
        self._kept = _Kept(converter.begin(), 0, 0, np.zeros(self._held, np.float32), "", False)

    @property
    def settings(self) -> ConvertSettings:
        """Those of the next block."""
        return self._settings

    @property
    def samples(self) -> int:
        """Samples taken in so far."""
        return self._kept.samples

    @property
    def bypass(self) -> bool:
        """Whether the take itself goes through, equally late; set it between blocks."""
        return self._kept.bypass

    @bypass.setter
    def bypass(self, on: bool) -> None:
        self._kept = replace(self._kept, bypass=bool(on))

    def change(self, settings: ConvertSettings) -> None:
        """Convert the blocks to come with other settings. Raises SettingsError; the old ones then stay."""
        self._converter.check(settings)
        self._settings = settings

    def feed(self, block: Array) -> Array:
        """``[samples]`` at 48 kHz -> as many, ``delay`` samples late. Raises AudioError; the stream then goes on as
        if the block had not come.
        """
        if block.ndim != 1 or len(block) > MOST_BLOCK:
            raise AudioError(f"a block is mono [samples], at most {MOST_BLOCK}, not {list(block.shape)}")
        if len(block) % self._multiple:
            raise AudioError(f"this stream takes blocks of multiples of {self._multiple} samples, not {len(block)}")
        if not np.isfinite(block).all():
            raise AudioError("the block holds values that are not numbers")
        kept, hop = self._kept, self._converter.hop
        coming = np.concatenate([kept.held[: kept.waiting], np.clip(block, -8, 8).astype(np.float32)])
        made, stream = [kept.held[kept.waiting :]], kept.stream
        whole = len(coming) // hop * hop
        for start in range(0, whole, hop):
            stream, wave = self._converter.step(stream, coming[start : start + hop], self._settings, bypass=kept.bypass)
            made.append(wave)
        ready = np.concatenate(made)
        held = np.concatenate([coming[whole:], ready[len(block) :]])
        self._kept = replace(
            kept, stream=stream, samples=kept.samples + len(block), waiting=len(coming) - whole, held=held
        )
        return ready[: len(block)]

    def flush(self) -> Array:
        """The last ``delay`` samples, as if silence followed. The session itself stays as it was."""
        kept = self._kept
        missing = -(-self.delay // self._multiple) * self._multiple
        rest = [
            self.feed(np.zeros(min(missing - start, MOST_BLOCK // self._multiple * self._multiple), np.float32))
            for start in range(0, missing, MOST_BLOCK // self._multiple * self._multiple)
        ]
        self._kept = kept
        return np.concatenate([np.zeros(0, np.float32), *rest])[: self.delay]

    def state(self) -> bytes:
        """Everything that another session of the same voice, layout and ``multiple`` needs to go on from here."""
        return pack(replace(self._kept, settings=json.dumps(asdict(self._settings))))

    def restore(self, state: bytes) -> None:
        """Go on from ``state``: what comes out is what the other session would have given, to the bit.

        Raises StreamStateError if it is not one of a stream like this; this session then stays as it was.
        """
        kept = unpack(state, self._kept)
        if not 0 <= kept.waiting <= len(kept.held):
            raise StreamStateError("the state of the stream holds a number out of range")
        try:
            settings = ConvertSettings.from_mapping(json.loads(kept.settings))
            self.change(settings)
        except (ValueError, TypeError, AttributeError, SettingsError) as error:
            raise StreamStateError(f"the state of the stream holds settings that cannot be used: {error}") from error
        self._kept = replace(kept, settings="")
