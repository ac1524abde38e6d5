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
        self._products = np.zeros((channels, channels))

    def add(self, block: Array) -> None:
        """Takes in ``[n, channels]``."""
        if block.shape[1] == 1:
            return
        self._products += block.T @ block

    @property
    def channel(self) -> int | None:
        """The channel to take; None for the mean."""
        # Of the products of all pairs of channels: the diagonal holds their energies, the sum that of their sum.
        energies = np.diag(self._products)
        mean = self._products.sum() / len(energies) ** 2
        if energies.any() and mean < energies.mean() * 10 ** (CANCELLED_DB / 10):
            return int(np.argmax(energies))
        return None


def to_mono(block: Array, channel: int | None) -> Array:
    """``[n, channels]`` -> ``[n]``: one channel, or with None the mean."""
    if channel is not None:
        return np.ascontiguousarray(block[:, channel])
    if block.shape[1] == 1:
        return np.ascontiguousarray(block[:, 0])
    total = block[:, 0].copy()
    for column in range(1, block.shape[1]):
        total += block[:, column]
    return total * np.float32(1 / block.shape[1])
