"""FCPE: fast, robust to noise, weights that a package carries. The bundle's pitch extractor."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from rocktop_ray.features.pitch.checks import (
    HOP,
    analyse,
    checked,
    checked_threshold,
    fit_length,
    frame_count,
    is_silent,
)
from rocktop_ray.features.pitch.mel import N_FFT, LogMel, pad_audio
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
        self.front = LogMel(low=0, htk=False, power_floor=1e-9, device=self.device)
        self.cents = np.linspace(1200 * np.log2(LOW_HZ / 10), 1200 * np.log2(HIGH_HZ / 10), BINS)

    def f0(self, audio: Array) -> Array:
        """Audio ``[samples]`` at 16 kHz -> F0 ``[samples // 160 + 1]`` in Hz, 0 = unvoiced. Raises AudioError."""
        return analyse(audio, self._extract)

    @torch.inference_mode()
    def f0_many(self, audio: Array) -> Array:
        """Takes of the same length ``[takes, samples]``, at most 30 s, at 16 kHz -> ``f0`` of each, in one pass."""
        silent = [is_silent(checked(each)) for each in audio]
        salience = self.network.together(torch.stack([self.mel(each) for each in audio])).cpu().numpy()
        frames = frame_count(audio.shape[1])
        found = [
            np.zeros(frames, np.float32) if nothing else fit_length(self.decode(rows), frames)
            for nothing, rows in zip(silent, salience, strict=True)
        ]
        return np.stack(found)

    def decode(self, salience: Array) -> Array:
        """Salience ``[frames, 360]`` -> F0 ``[frames]`` in Hz."""
        return local_average(salience, self.cents, self.threshold, repeat_edge=True)

    @torch.inference_mode()
    def mel(self, audio: Array) -> torch.Tensor:
        """Audio ``[samples]`` at 16 kHz -> log-mel ``[128, samples // 160 + 1]``; the last frame is repeated."""
        samples = torch.from_numpy(audio).to(self.device)
        left = (N_FFT - HOP) // 2
        mel = self.front(pad_audio(samples, left, max(left, N_FFT - len(audio) - left)))
        return torch.cat([mel, mel[:, -1:]], dim=1)[:, : len(audio) // HOP + 1]

    @torch.inference_mode()
    def salience(self, audio: Array) -> Array:
        """Audio ``[samples]`` at 16 kHz -> salience ``[samples // 160 + 1, 360]``."""
        return np.asarray(self.network(self.mel(audio)).cpu())

    @torch.inference_mode()
    def _extract(self, audio: Array) -> Array:
        chunks = self.network.chunks(self.mel(audio))
        return np.concatenate([self.decode(np.asarray(chunk.cpu())) for chunk in chunks])
