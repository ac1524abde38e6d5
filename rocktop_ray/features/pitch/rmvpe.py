"""RMVPE: the usual choice for singing, also over music. Needs ``rmvpe.pt``."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from rocktop_ray.features.pitch.checks import analyse, checked_threshold
from rocktop_ray.features.pitch.mel import N_FFT, LogMel, pad_audio
from rocktop_ray.features.pitch.salience import bin_cents, local_average
from rocktop_ray.features.pitch.weights import fit, weight_tensors
from rocktop_ray.heap import loading
from rocktop_ray.models.rmvpe import RMVPE, tensors_from_file
from rocktop_ray.protocols import Array

WINDOW = 32_000
OVERLAP = 1_024
"""Takes beyond ``WINDOW`` frames (320 s) are analysed in windows with ``OVERLAP`` more frames to each side.

Both are multiples of the network's stride, so that its pooling falls on the same frames as in one pass.
"""


class RmvpeExtractor:
    """Pitch by ``rmvpe.pt``, as RVC decodes it.

    The network sees a whole take at once, up to 320 s; longer takes go through in overlapping windows, so that memory
    is bounded. Its recurrent layer then knows 10 s, not everything, of what lies beyond a window.

    Args:
        path: the weights file; None means the installed one.
        device: torch device of the network.
        threshold: a frame whose strongest class is not above this is unvoiced, 0..1.

    Raises ModelMissingError, UnsafeFileError or VoiceFormatError for weights that cannot be used, SettingsError for
    a threshold out of range.
    """

    name = "rmvpe"

    def __init__(self, path: Path | str | None = None, *, device: str = "cpu", threshold: float = 0.03) -> None:
        self.threshold = checked_threshold(threshold)
        self.device = torch.device(device)
        with loading():
            tensors = weight_tensors("rmvpe", path)
            self.network = fit(RMVPE, tensors, tensors_from_file, "the RMVPE network rmvpe.pt", self.device)
        self.front = LogMel(low=30, htk=True, device=self.device)

    def f0(self, audio: Array) -> Array:
        """Audio ``[samples]`` at 16 kHz -> F0 ``[samples // 160 + 1]`` in Hz, 0 = unvoiced. Raises AudioError."""
        return analyse(audio, self._extract)

    @torch.inference_mode()
    def mel(self, audio: Array) -> Array:
        """Audio ``[samples]`` at 16 kHz -> log-mel ``[128, samples // 160 + 1]``."""
        samples = torch.from_numpy(audio).to(self.device)
        return np.asarray(self.front(pad_audio(samples, N_FFT // 2, N_FFT // 2)).cpu())

    @torch.inference_mode()
    def salience(self, mel: Array) -> Array:
        """Log-mel ``[128, frames]`` -> salience ``[frames, 360]``."""
        return np.asarray(self.network(torch.from_numpy(mel).to(self.device)).cpu())

    def decode(self, salience: Array) -> Array:
        """Salience ``[frames, 360]`` -> F0 ``[frames]`` in Hz."""
        return local_average(salience, bin_cents(), self.threshold, repeat_edge=False)

    def _extract(self, audio: Array) -> Array:
        mel = self.mel(audio)
        frames = mel.shape[1]
        parts = []
        for start in range(0, frames, WINDOW):
            left, right = max(0, start - OVERLAP), min(frames, start + WINDOW + OVERLAP)
            salience = self.salience(np.ascontiguousarray(mel[:, left:right]))
            parts.append(self.decode(salience[start - left :][:WINDOW]))
        return np.concatenate(parts)
