"""Loudness of the take carried over to the converted take (RVC's ``rms_mix_rate``), as far as it is made."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from rocktop_ray.protocols import Array

_FLOOR = 1e-6
_Curve = npt.NDArray[np.float64]


class LoudnessMeter:
    """RMS over centred frames of 1 s, every 0.5 s, zeros beyond the ends: ``1 + samples // hop`` points in all.

    The result does not depend on how the audio is cut into blocks.
    """

    def __init__(self, rate: int) -> None:
        self._hop = rate // 2
        self._taken = 0
        self._energy = 0.0
        # Energy before the samples -hop, 0, hop, 2 hop...; a frame lies between two marks.
        self._marks = [0.0, 0.0]

    def push(self, audio: npt.NDArray[np.floating]) -> None:
        """Takes in ``[samples]``."""
        # The sum goes from sample to sample: as over the whole, to the last bit.
        energy = np.cumsum(np.concatenate([[self._energy], np.square(audio, dtype=np.float64)]))
        to_mark = -self._taken % self._hop or self._hop
        self._marks.extend(energy[to_mark :: self._hop])
        self._taken += len(audio)
        self._energy = float(energy[-1])

    def finish(self) -> None:
        """Nothing follows."""
        self._marks += [self._energy] * (3 + self._taken // self._hop - len(self._marks))

    @property
    def curve(self) -> _Curve:
        """The points that are known: what follows cannot change them."""
        marks = np.array(self._marks)
        return np.sqrt(np.maximum(marks[2:] - marks[:-2], 0.0) / (2 * self._hop))


def loudness_curve(audio: npt.NDArray[np.floating], rate: int) -> _Curve:
    """The points of ``LoudnessMeter`` over ``[samples]``."""
    meter = LoudnessMeter(rate)
    meter.push(audio)
    meter.finish()
    return meter.curve


def stretch(
    curve: _Curve, samples: int, *, points: int | None = None, start: int = 0, stop: int | None = None
) -> npt.NDArray[np.float32]:
    """The curve drawn over ``samples`` points by linear interpolation between centres of equal cells.

    This is torch's ``interpolate(mode="linear", align_corners=False)``, which the reference uses. ``curve`` may be the
    first part of one with ``points``, as long as samples ``start .. stop``, which are drawn, lie within it.
    """
    points = len(curve) if points is None else points
    positions = (np.arange(start, samples if stop is None else stop) + 0.5) * (points / samples) - 0.5
    return np.interp(positions, np.arange(len(curve)), curve).astype(np.float32)


class LoudnessMixer:
    """``mix_loudness`` for a wave that comes in parts; holds back about a second and a half."""

    def __init__(
        self, source: npt.NDArray[np.floating], source_rate: int, samples: int, rate: int, keep: float
    ) -> None:
        """``samples`` of the wave in all; the rest as in ``mix_loudness``."""
        self._keep, self._samples = keep, samples
        self._theirs = loudness_curve(source, source_rate) if keep < 1 else np.zeros(0)
        self._ours = LoudnessMeter(rate)
        self._points = 1 + samples // (rate // 2)
        self._waiting: Array = np.zeros(0, np.float32)
        self._given = 0

    def push(self, wave: Array) -> Array:
        """Takes in ``[samples]`` and returns what is ready, possibly nothing."""
        if self._keep >= 1:
            return wave
        self._ours.push(wave)
        self._waiting = np.concatenate([self._waiting, wave])
        # Up to the last sample that lies between two known points; one less, for what rounding may do.
        known = len(self._ours.curve)
        ready = int((known - 0.5) * (self._samples / self._points) - 0.5) - 1
        return self._mix(max(0, min(ready - self._given, len(self._waiting))))

    def finish(self) -> Array:
        """The rest."""
        if self._keep >= 1:
            return self._waiting
        self._ours.finish()
        return self._mix(len(self._waiting))

    def _mix(self, count: int) -> Array:
        if not count:
            return self._waiting[:0]
        wave, self._waiting = self._waiting[:count], self._waiting[count:].copy()
        start, stop = self._given, self._given + count
        self._given = stop
        theirs = stretch(self._theirs, self._samples, start=start, stop=stop)
        ours = stretch(self._ours.curve, self._samples, points=self._points, start=start, stop=stop)
        ours = np.maximum(ours, _FLOOR)
        return wave * theirs ** np.float32(1 - self._keep) * ours ** np.float32(self._keep - 1)


def mix_loudness(source: npt.NDArray[np.floating], source_rate: int, converted: Array, rate: int, keep: float) -> Array:
    """Give ``converted`` a loudness between its own and the source's.

    Args:
        source: ``[samples]`` at ``source_rate``, the same stretch of time as ``converted``.
        converted: ``[samples]`` at ``rate``.
        keep: 1 returns ``converted`` as it is; 0 gives it the source's loudness.
    """
    mixer = LoudnessMixer(source, source_rate, len(converted), rate, keep)
    return np.concatenate([mixer.push(converted), mixer.finish()])
