"""CREPE full and tiny, decoded as RVC decodes torchcrepe's output."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from rocktop_ray.errors import SettingsError
from rocktop_ray.features.pitch.checks import HOP, analyse, checked_threshold, frame_count
from rocktop_ray.features.pitch.salience import BINS, CENTS_PER_BIN, FIRST_CENT, bin_cents, cents_to_hz
from rocktop_ray.features.pitch.viterbi import best_path
from rocktop_ray.features.pitch.weights import fit, weight_tensors
from rocktop_ray.models.crepe import CREPE, FRAME, tensors_from_file
from rocktop_ray.protocols import Array

LOW_HZ, HIGH_HZ = 50.0, 1100.0
"""Range of the F0 that RVC asks for."""
_SIZES = {"full": 32, "tiny": 4}


class CrepeExtractor:
    """Pitch by CREPE with a Viterbi path.

    torchcrepe hides its 20-cent steps by adding random cents. Here the F0 is the salience-weighted mean of the nine
    classes around the path, as in the original CREPE: finer, and the same every time.

    Args:
        path: the weights file; None means the installed one.
        size: ``full`` or ``tiny``.
        device: torch device of the network.
        threshold: a frame whose salience, median of three, is below this is unvoiced, 0..1.
        batch: frames at a time.

    Raises ModelMissingError, UnsafeFileError or VoiceFormatError for weights that cannot be used, SettingsError for
    an unknown size or a threshold out of range.
    """

    def __init__(
        self,
        path: Path | str | None = None,
        *,
        size: str = "full",
        device: str = "cpu",
        threshold: float = 0.1,
        batch: int = 32,
    ) -> None:
        if size not in _SIZES:
            raise SettingsError(f"CREPE is full or tiny, not {size!r}", stage="pitch")
        self.name = "crepe" if size == "full" else "crepe-tiny"
        self.threshold = checked_threshold(threshold)
        self.device = torch.device(device)
        self.batch = batch
        tensors = weight_tensors(f"crepe-{size}", path)
        self.network = fit(lambda: CREPE(_SIZES[size]), tensors, tensors_from_file, f"CREPE {size}", self.device)
        if self.device.type == "cpu":
            self.network.prepare()

    def f0(self, audio: Array) -> Array:
        """Audio ``[samples]`` at 16 kHz -> F0 ``[samples // 160 + 1]`` in Hz, 0 = unvoiced. Raises AudioError."""
        return analyse(audio, lambda checked: self.decode(self.salience(checked)))

    @torch.inference_mode()
    def salience(self, audio: Array) -> Array:
        """Audio ``[samples]`` at 16 kHz -> salience ``[samples // 160 + 1, 360]``."""
        padded = np.pad(audio, FRAME // 2)
        frames = np.lib.stride_tricks.sliding_window_view(padded, FRAME)[::HOP]
        salience = np.empty((frame_count(len(audio)), BINS), np.float32)
        for start in range(0, len(salience), self.batch):
            part = torch.from_numpy(frames[start : start + self.batch].copy()).to(self.device)
            part -= part.mean(dim=1, keepdim=True)
            part /= part.std(dim=1, keepdim=True).clamp(min=1e-10)
            salience[start : start + self.batch] = self.network(part).cpu().numpy()
        return salience

    def path(self, salience: Array) -> npt.NDArray[np.intp]:
        """Salience ``[frames, 360]`` -> Viterbi path ``[frames]`` in classes, within 50 to 1100 Hz."""
        low, high = ((1200 * np.log2(hz / 10) - FIRST_CENT) / CENTS_PER_BIN for hz in (LOW_HZ, HIGH_HZ))
        return best_path(salience, int(np.floor(low)), int(np.ceil(high)))

    def decode(self, salience: Array) -> Array:
        """Salience ``[frames, 360]`` -> F0 ``[frames]`` in Hz: path, mean of three frames, unvoiced frames zero."""
        path = self.path(salience)
        around = np.clip(path[:, None] + np.arange(-4, 5), 0, BINS - 1)
        weights = np.take_along_axis(salience, around, axis=1).astype(np.float64)
        cents = (weights * bin_cents()[around]).sum(axis=1) / np.maximum(weights.sum(axis=1), 1e-12)
        periodicity = median_of_three(salience[np.arange(len(path)), path])
        f0 = mean_of_three(cents_to_hz(cents))
        return np.where(periodicity < self.threshold, 0, f0).astype(np.float32)


def median_of_three(values: npt.NDArray[np.floating]) -> npt.NDArray[np.float64]:
    """Median of each value and its neighbours ``[n]``; the ends, with one neighbour, take the lower."""
    padded = np.pad(np.asarray(values, np.float64), 1, constant_values=np.inf)
    ordered = np.sort(np.lib.stride_tricks.sliding_window_view(padded, 3), axis=1)
    return np.concatenate([ordered[:1, 0], ordered[1:-1, 1], ordered[1:][-1:, 0]])


def mean_of_three(values: npt.NDArray[np.floating]) -> npt.NDArray[np.float64]:
    """Mean of each value and its neighbours ``[n]``; the ends average with the one that they have."""
    ones = np.ones(3)
    return np.convolve(values, ones)[1:-1] / np.convolve(np.ones(len(values)), ones)[1:-1]
