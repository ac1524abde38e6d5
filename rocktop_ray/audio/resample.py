"""Changing the sample rate: soxr, VHQ, linear phase. The delay is compensated, the length is exact."""

from __future__ import annotations

import numpy as np
import soxr

from rocktop_ray.errors import SettingsError
from rocktop_ray.protocols import Array

_BLOCK = 1 << 18


def resampled_length(samples: int, from_rate: int, to_rate: int) -> int:
    """``samples * to_rate / from_rate`` rounded half up."""
    return (2 * samples * to_rate + from_rate) // (2 * from_rate)


class StreamResampler:
    """Resamples block by block: all blocks together equal ``resample`` of the whole to 1e-6 of full scale."""

    def __init__(self, from_rate: int, to_rate: int, channels: int | None = None) -> None:
        """For float32 blocks ``[n]`` (channels None) or ``[n, channels]``. Raises SettingsError below 1 Hz."""
        if from_rate < 1 or to_rate < 1:
            raise SettingsError(f"cannot resample from {from_rate} Hz to {to_rate} Hz")
        self._rates = (from_rate, to_rate)
        self._columns = () if channels is None else (channels,)
        self._taken = self._given = 0
        self._soxr = None
        if from_rate != to_rate:
            self._soxr = soxr.ResampleStream(from_rate, to_rate, channels or 1, dtype="float32", quality="VHQ")

    def push(self, block: Array) -> Array:
        """Takes in a block and returns what is ready, possibly nothing."""
        self._taken += len(block)
        if self._soxr is None:
            self._given += len(block)
            return np.asarray(block, np.float32)
        ready = self._shape(self._soxr.resample_chunk(np.ascontiguousarray(block, np.float32)))
        self._given += len(ready)
        return ready

    def finish(self) -> Array:
        """The rest. The total length is then ``resampled_length`` of what came in."""
        missing = resampled_length(self._taken, *self._rates) - self._given
        empty = np.zeros((0, *self._columns), np.float32)
        if self._soxr is None:
            return empty
        rest = self._shape(self._soxr.resample_chunk(empty, last=True)) if self._taken else empty
        self._given += missing
        if len(rest) < missing:
            rest = np.concatenate([rest, np.zeros((missing - len(rest), *self._columns), np.float32)])
        return rest[: max(missing, 0)]

    def _shape(self, block: Array) -> Array:
        return np.asarray(block, np.float32).reshape(-1, *self._columns)


def resample(audio: Array, from_rate: int, to_rate: int) -> Array:
    """Float32 ``[n]`` or ``[n, channels]`` at ``from_rate`` -> ``[resampled_length(n), ...]`` at ``to_rate``.

    The length is ``n * to_rate / from_rate`` rounded half up. Raises SettingsError for rates below 1 Hz.
    """
    resampler = StreamResampler(from_rate, to_rate, None if audio.ndim == 1 else audio.shape[1])
    parts = [resampler.push(audio[start : start + _BLOCK]) for start in range(0, len(audio), _BLOCK)]
    return np.concatenate([*parts, resampler.finish()])
