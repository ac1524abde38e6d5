"""Float samples to 16- or 24-bit integers with TPDF dither (Lipshitz, Wannamaker, Vanderkooy 1992)."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from rocktop_ray.protocols import Array


class Quantiser:
    """Rounds blocks to integers. The dither is seeded: the same audio gives the same integers, however it is cut.

    Triangular noise of ±1 step makes the error independent of the signal: noise at a constant level, no distortion.
    Samples that are exactly zero stay zero, so digital silence stays silent.
    """

    def __init__(self, bits: int, seed: int = 0) -> None:
        self._steps = 2 ** (bits - 1)
        self._generator = np.random.Generator(np.random.Philox(seed))

    def __call__(self, audio: Array) -> npt.NDArray[np.int32]:
        """Float ``[...]``, full scale ±1 -> integers within ``±2**(bits - 1)``; what is louder is clipped."""
        noise = self._generator.random((*audio.shape, 2))
        dithered = audio.astype(np.float64) * self._steps + (noise[..., 0] - noise[..., 1])
        whole = np.clip(np.rint(dithered), -self._steps, self._steps - 1)
        return np.where(audio == 0.0, 0, whole).astype(np.int32)
