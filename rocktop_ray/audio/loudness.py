"""Integrated loudness in LUFS (ITU-R BS.1770-4; EBU R 128)."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.signal import sosfilt

from rocktop_ray.audio.level import FLOOR_DBFS
from rocktop_ray.protocols import Array

_HOP = 0.1  # seconds
_HOPS = 4  # one block is 0.4 s
_ABSOLUTE_GATE, _RELATIVE_GATE = -70.0, -10.0


def k_weighting(rate: int) -> npt.NDArray[np.float64]:
    """The two filters of BS.1770 as second-order sections ``[2, 6]`` for any rate.

    The standard gives coefficients for 48 kHz only; these are the analogue filters behind them (shelf 1681.97 Hz,
    +3.99984 dB; high-pass 38.1355 Hz), transformed bilinearly: at 48 kHz they equal the standard's to 1e-6.
    """
    gain, q, tangent = 10 ** (3.999843853973347 / 20), 0.7071752369554196, np.tan(np.pi * 1681.974450955533 / rate)
    middle = gain**0.4996667741545416
    norm = 1 + tangent / q + tangent**2
    shelf = [
        (gain + middle * tangent / q + tangent**2) / norm,
        2 * (tangent**2 - gain) / norm,
        (gain - middle * tangent / q + tangent**2) / norm,
        1.0,
        2 * (tangent**2 - 1) / norm,
        (1 - tangent / q + tangent**2) / norm,
    ]
    q, tangent = 0.5003270373238773, np.tan(np.pi * 38.13547087602444 / rate)
    norm = 1 + tangent / q + tangent**2
    highpass = [1.0, -2.0, 1.0, 1.0, 2 * (tangent**2 - 1) / norm, (1 - tangent / q + tangent**2) / norm]
    return np.array([shelf, highpass])


class LoudnessMeter:
    """Takes in a recording block by block and keeps only the energy of each 100 ms."""

    def __init__(self, rate: int) -> None:
        self._sections = k_weighting(rate)
        self._state: npt.NDArray[np.float64] | None = None
        self._hop = max(1, round(_HOP * rate))
        self._energy: list[float] = []
        self._sum, self._count = 0.0, 0

    def add(self, block: Array) -> None:
        """Takes in ``[n]`` or ``[n, channels]``; all channels weigh the same."""
        if not len(block):
            return
        frames = np.asarray(block, np.float64).reshape(len(block), -1)
        if self._state is None:
            self._state = np.zeros((len(self._sections), 2, frames.shape[1]))
        weighted, self._state = sosfilt(self._sections, frames, axis=0, zi=self._state)
        power = np.square(weighted).sum(axis=1)
        taken = 0
        while taken < len(power):
            part = power[taken : taken + self._hop - self._count]
            self._sum += float(part.sum())
            self._count += len(part)
            taken += len(part)
            if self._count == self._hop:
                self._energy.append(self._sum / self._hop)
                self._sum, self._count = 0.0, 0

    @property
    def integrated(self) -> float:
        """Gated loudness in LUFS; FLOOR_DBFS for silence. What is shorter than one block of 0.4 s is one block."""
        hops = np.array(self._energy)
        if len(hops) < _HOPS:
            heard = self._hop * len(hops) + self._count
            blocks = np.array([(self._hop * hops.sum() + self._sum) / heard]) if heard else np.zeros(0)
        else:
            blocks = np.convolve(hops, np.ones(_HOPS) / _HOPS, "valid")
        levels = _level(blocks)
        if not (levels > _ABSOLUTE_GATE).any():
            return FLOOR_DBFS
        relative = _level(blocks[levels > _ABSOLUTE_GATE].mean()) + _RELATIVE_GATE
        return float(_level(blocks[(levels > _ABSOLUTE_GATE) & (levels > relative)].mean()))


def _level(power: npt.NDArray[np.float64] | np.float64) -> npt.NDArray[np.float64]:
    return np.asarray(-0.691 + 10 * np.log10(np.maximum(power, 1e-30)))


def loudness(audio: Array, rate: int) -> float:
    """Integrated loudness in LUFS of ``[n]`` or ``[n, channels]``; see LoudnessMeter."""
    meter = LoudnessMeter(rate)
    meter.add(audio)
    return meter.integrated
