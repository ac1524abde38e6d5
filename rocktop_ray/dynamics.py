"""Loudness of the take carried over to the converted take (RVC's ``rms_mix_rate``)."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from rocktop_ray.protocols import Array

_FLOOR = 1e-6


def loudness_curve(audio: npt.NDArray[np.floating], rate: int) -> npt.NDArray[np.float64]:
    """RMS of ``[samples]`` over centred frames of 1 s, every 0.5 s, zeros beyond the ends: ``[1 + samples // hop]``."""
    hop = rate // 2
    frame = hop * 2
    padded = np.pad(audio.astype(np.float64), frame // 2)
    energy = np.concatenate([[0.0], np.cumsum(padded * padded)])
    starts = np.arange(1 + (len(padded) - frame) // hop) * hop
    return np.sqrt(np.maximum(energy[starts + frame] - energy[starts], 0.0) / frame)


def stretch(curve: npt.NDArray[np.float64], samples: int) -> npt.NDArray[np.float32]:
    """The curve drawn over ``samples`` points by linear interpolation between centres of equal cells.

    This is torch's ``interpolate(mode="linear", align_corners=False)``, which the reference uses.
    """
    positions = (np.arange(samples) + 0.5) * (len(curve) / samples) - 0.5
    return np.interp(positions, np.arange(len(curve)), curve).astype(np.float32)


def mix_loudness(source: npt.NDArray[np.floating], source_rate: int, converted: Array, rate: int, keep: float) -> Array:
    """Give ``converted`` a loudness between its own and the source's.

    Args:
        source: ``[samples]`` at ``source_rate``, the same stretch of time as ``converted``.
        converted: ``[samples]`` at ``rate``.
        keep: 1 returns ``converted`` as it is; 0 gives it the source's loudness.
    """
    if keep >= 1 or len(converted) == 0:
        return converted
    theirs = stretch(loudness_curve(source, source_rate), len(converted))
    ours = np.maximum(stretch(loudness_curve(converted, rate), len(converted)), _FLOOR)
    return converted * theirs ** np.float32(1 - keep) * ours ** np.float32(keep - 1)
