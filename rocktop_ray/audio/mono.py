"""How several channels become one."""

from __future__ import annotations

import numpy as np

from rocktop_ray.protocols import Array

CANCELLED_DB = -20.0
"""Mean of the channels this far below them: they are in opposite phase."""


class MonoMeter:
    """Decides the rule for one recording.

    The rule is the mean of all channels. Where the channels are in opposite phase (one plugged the wrong way round,
    or a "wide" effect), the mean cancels what is sung: if its energy over the whole recording lies more than 20 dB
    below the mean energy of the channels, the loudest channel is taken instead. Silence keeps the mean.
    """

    def __init__(self, channels: int) -> None:
        self._channels = np.zeros(channels)
        self._mean = 0.0

    def add(self, block: Array) -> None:
        """Takes in ``[n, channels]``."""
        if block.shape[1] == 1:
            return
        wide = block.astype(np.float64)
        self._channels += np.square(wide).sum(axis=0)
        self._mean += float(np.square(wide.mean(axis=1)).sum())

    @property
    def channel(self) -> int | None:
        """The channel to take; None for the mean."""
        energy = float(self._channels.mean())
        if energy > 0 and self._mean < energy * 10 ** (CANCELLED_DB / 10):
            return int(np.argmax(self._channels))
        return None


def to_mono(block: Array, channel: int | None) -> Array:
    """``[n, channels]`` -> ``[n]``: one channel, or with None the mean."""
    if channel is not None:
        return np.ascontiguousarray(block[:, channel])
    if block.shape[1] == 1:
        return np.ascontiguousarray(block[:, 0])
    return block.mean(axis=1, dtype=np.float64).astype(np.float32)
