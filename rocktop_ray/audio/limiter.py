"""A look-ahead peak limiter for audio whose peak is not known beforehand: a take that is sent while it is made.

Brick wall on sample peaks. The gain falls during the look-ahead before a peak, and climbs back by so many dB per second
(a smoothed "hold and slide" gain, in dB, as in Giannoulis, Massberg and Reiss, "Digital dynamic range compressor
design", JAES 2012). Audio that never exceeds the ceiling passes as it is, bit for bit.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.ndimage import maximum_filter1d

from rocktop_ray.audio.level import from_db
from rocktop_ray.errors import SettingsError
from rocktop_ray.protocols import Array

_BLOCK = 1 << 14
_Reduction = npt.NDArray[np.float64]


class Limiter:
    """Holds back ``look_ahead`` seconds; nothing is delayed in the result, and the length is that of the source.

    The result does not depend on how the audio is cut into blocks.
    """

    def __init__(
        self,
        rate: int,
        ceiling_dbfs: float = -1.0,
        *,
        look_ahead: float = 0.005,
        recovery: float = 40.0,
        block: int = _BLOCK,
    ) -> None:
        """For mono audio at ``rate`` Hz; ``recovery`` in dB per second; ``block``: samples that are worked on, and so
        held back, at a time. Raises SettingsError above 0 dBFS.
        """
        if not -120.0 <= ceiling_dbfs <= 0.0:
            raise SettingsError(f"the ceiling must be from -120 to 0 dBFS, not {ceiling_dbfs:g}")
        self.deepest_db = 0.0
        """The largest reduction so far."""
        self._ceiling = _below(from_db(ceiling_dbfs))
        self._step = recovery / rate
        self._block = block
        self._ahead = max(1, round(rate * look_ahead))
        window = np.hanning(self._ahead + 3)[1:-1]
        self._window = window / window.sum()
        self._waiting: Array = np.zeros(0, np.float32)
        # Reductions (dB, not negative) of the samples just before those that wait, recovery included.
        self._before = np.zeros(self._ahead)

    def push(self, block: Array) -> Array:
        """Takes in ``[n]`` and returns what is ready, possibly nothing."""
        self._waiting = np.concatenate([self._waiting, np.asarray(block, np.float32)])
        parts = []
        while len(self._waiting) >= self._block + self._ahead:
            parts.append(self._pass(self._block))
        return np.concatenate(parts) if parts else np.zeros(0, np.float32)

    def finish(self) -> Array:
        """The rest."""
        count = len(self._waiting)
        self._waiting = np.pad(self._waiting, (0, self._ahead))
        parts = [self._pass(min(self._block, count - start)) for start in range(0, count, self._block)]
        return np.concatenate(parts) if parts else np.zeros(0, np.float32)

    def _pass(self, count: int) -> Array:
        """The first ``count`` samples that wait; the look-ahead behind them is there."""
        audio, seen = self._waiting[:count], self._waiting[: count + self._ahead]
        self._waiting = self._waiting[count:]
        magnitude = np.abs(seen)
        if not self._before.any() and magnitude.max(initial=0.0) <= self._ceiling:
            return audio
        needed = np.zeros(len(seen))
        over = magnitude > self._ceiling
        needed[over] = 20 * np.log10(magnitude[over].astype(np.float64) / self._ceiling)
        # The filter's origin puts each sample at the start of its window.
        held = maximum_filter1d(needed, self._ahead + 1, mode="nearest", origin=-((self._ahead + 1) // 2))[:count]
        sliding = np.concatenate([self._before, self._recover(held)])
        self._before = sliding[count:]
        # Every reduction under the window covers this sample's need, so their mean does too.
        reduction = np.convolve(sliding, self._window, mode="valid")
        self.deepest_db = max(self.deepest_db, float(reduction.max()))
        limited = audio * (10.0 ** (-reduction / 20)).astype(np.float32)
        return np.clip(limited, -self._ceiling, self._ceiling)  # what rounding may leave above

    def _recover(self, held: _Reduction) -> _Reduction:
        """Falls no faster than the recovery: the largest of what is held now and what earlier ones have slid to."""
        slope = self._step * np.arange(1, len(held) + 1)
        slid = np.maximum.accumulate(held + slope) - slope
        return np.maximum(np.maximum(slid, self._before[-1] - slope), 0.0)


def _below(amplitude: float) -> np.float32:
    """The largest float32 that is not above."""
    near = np.float32(amplitude)
    return near if float(near) <= amplitude else np.nextafter(near, np.float32(0))
