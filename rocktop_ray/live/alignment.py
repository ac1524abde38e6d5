"""From the clock of a stream back to that of its source."""

from __future__ import annotations

import numpy as np

from rocktop_ray.live.messages import Audio
from rocktop_ray.protocols import Array


class Alignment:
    """Cuts the delay off, so that with the flush the result is exactly as long as the source.

    Where the delay changes on the way (another voice), what would sound twice is left out, and what is missing is
    silence.
    """

    def __init__(self) -> None:
        self.samples = 0
        """Given so far."""

    def push(self, audio: Audio, delay: int) -> Array:
        """A block that is ``delay`` samples late -> the next samples of the result, possibly none."""
        early = self.samples - (audio.position - delay)
        missing = np.zeros(max(0, -early), np.float32)
        out = np.concatenate([missing, audio.samples[max(0, early) :]])
        self.samples += len(out)
        return out
