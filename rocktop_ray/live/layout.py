"""How a stream is cut."""

from __future__ import annotations

from dataclasses import dataclass

from rocktop_ray.chunks import FRAME, PAD
from rocktop_ray.errors import SettingsError
from rocktop_ray.protocols import TAKE_RATE

TAKE_FRAME = TAKE_RATE // 100
"""Samples at 48 kHz of a frame."""
FIRST_ROW = PAD // FRAME
"""Row of the noise tables that belongs to the stream's first frame: that of an offline conversion's."""


@dataclass(frozen=True)
class LiveLayout:
    """How a stream is cut, in frames of 10 ms; all even, as units come at 50/s.

    Raises SettingsError for values out of range.

    Attributes:
        hop: frames that are converted at a time, 2..100.
        ahead: frames that encoder, extractor and acoustic model hear after the newest converted one, 0..100. They are
            computed again with the next hop. What has an exact streaming form does not use this, nor what follows.
        left: frames before that the encoder hears, 20..1000.
        pitch_left: frames before that the extractor hears, 4..1000.
        acoustic_left: frames before that the attention of an RVC voice's prior encoder hears, 20..1000.
    """

    hop: int = 16
    ahead: int = 12
    left: int = 100
    pitch_left: int = 30
    acoustic_left: int = 100

    def __post_init__(self) -> None:
        ranges = {"hop": (2, 100), "ahead": (0, FIRST_ROW), "left": (20, 1000), "acoustic_left": (20, 1000)}
        ranges["pitch_left"] = (4, 1000)
        for name, (low, high) in ranges.items():
            value = getattr(self, name)
            if not isinstance(value, int) or not low <= value <= high or value % 2:
                raise SettingsError(f"{name} must be an even number of frames from {low} to {high}, not {value!r}")
