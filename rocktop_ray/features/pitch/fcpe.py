"""FCPE: fast, robust to noise, weights that a package carries. The bundle's pitch extractor."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from rocktop_ray.features.pitch.checks import analyse, checked_threshold
from rocktop_ray.features.pitch.mel import HOP, N_FFT, LogMel, pad_audio
from rocktop_ray.features.pitch.salience import BINS, local_average
from rocktop_ray.features.pitch.weights import fit, weight_tensors
from rocktop_ray.models.fcpe import FCPE, tensors_from_file
from rocktop_ray.protocols import Array

LOW_HZ, HIGH_HZ = 32.7, 1975.5
"""Pitch of the first and the last class."""


class FcpeExtractor:
    """Pitch by ``fcpe_c_v001.pt``, as torchfcpe 0.0.4 decodes it.

    Args:
        path: the weights file; None means the installed one.
        device: torch device of the network.
        threshold: a frame whose strongest class is not above this is unvoiced, 0..1.

    Raises ModelMissingError, UnsafeFileError or VoiceFormatError for weights that cannot be used, SettingsError for
    a threshold out of range.
    """

    name = "fcpe"

    def __init__(self, path: Path | str | None = None, *, device: str = "cpu", threshold: float = 0.006) -> None:
        self.threshold = checked_threshold(threshold)
        self.device = torch.device(device)
        tensors = weight_tensors("fcpe", path)
        self.network = fit(FCPE, tensors, tensors_from_file, "the FCPE network fcpe_c_v001.pt", self.device)
        self.mel = LogMel(low=0, htk=False, power_floor=1e-9, device=self.device)
        self.cents = np.linspace(*(1200 * np.log2(np.array([LOW_HZ, HIGH_HZ]) / 10)), BINS)

    def f0(self, audio: Array) -> Array:
        """Audio ``[samples]`` at 16 kHz -> F0 ``[samples // 160 + 1]`` in Hz, 0 = unvoiced. Raises AudioError."""
        return analyse(
            audio, lambda checked: local_average(self.salience(checked), self.cents, self.threshold, repeat_edge=True)
        )

    @torch.inference_mode()
    def salience(self, audio: Array) -> Array:
        """Audio ``[samples]`` at 16 kHz -> salience ``[samples // 160 + 1, 360]``."""
        samples = torch.from_numpy(audio).to(self.device)
        left = (N_FFT - HOP) // 2
        mel = self.mel(pad_audio(samples, left, max(left, N_FFT - len(audio) - left)))
        frames = len(audio) // HOP + 1
        mel = torch.cat([mel, mel[:, -1:]], dim=1)[:, :frames]
        return self.network(mel).cpu().numpy()
