"""Log-mel front ends of the neural pitch extractors: magnitude STFT, Slaney-normalised triangles, natural log.

Both networks were trained on librosa's filters, so the filters follow its two mel scales (HTK: O'Shaughnessy's formula;
Slaney: linear below 1 kHz, logarithmic above, as in the Auditory Toolbox) and divide each triangle by its width in Hz.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from rocktop_ray.protocols import Array

N_FFT = 1024
HOP = 160
FLOOR = 1e-5
_BATCH = 4000
_LINEAR_HZ = 200 / 3
_LOG_STEP = math.log(6.4) / 27


def hz_to_mel(hz: npt.ArrayLike, *, htk: bool) -> npt.NDArray[np.float64]:
    """Hz to mel, of the HTK or the Slaney scale."""
    hz = np.asarray(hz, np.float64)
    if htk:
        return 2595.0 * np.log10(1.0 + hz / 700.0)
    return np.where(hz < 1000, hz / _LINEAR_HZ, 15 + np.log(np.maximum(hz, 1e-9) / 1000) / _LOG_STEP)


def mel_to_hz(mel: npt.ArrayLike, *, htk: bool) -> npt.NDArray[np.float64]:
    """Inverse of :func:`hz_to_mel`."""
    mel = np.asarray(mel, np.float64)
    if htk:
        return 700.0 * (10.0 ** (mel / 2595.0) - 1.0)
    return np.where(mel < 15, mel * _LINEAR_HZ, 1000 * np.exp((mel - 15) * _LOG_STEP))


def mel_filters(rate: int, n_fft: int, bands: int, low: float, high: float, *, htk: bool) -> Array:
    """Triangular filters ``[bands, n_fft // 2 + 1]``, each with area 1 (in Hz), between ``low`` and ``high`` Hz."""
    first, last = hz_to_mel([low, high], htk=htk)
    edges = mel_to_hz(np.linspace(first, last, bands + 2), htk=htk)
    bins = np.linspace(0, rate / 2, n_fft // 2 + 1)
    rise = (bins - edges[:-2, None]) / (edges[1:-1] - edges[:-2])[:, None]
    fall = (edges[2:, None] - bins) / (edges[2:] - edges[1:-1])[:, None]
    triangles = np.maximum(0, np.minimum(rise, fall))
    return (triangles * (2 / (edges[2:] - edges[:-2]))[:, None]).astype(np.float32)


class LogMel:
    """Log-mel of 16 kHz audio at 100 frames/s.

    Args:
        low: lower edge of the first band in Hz (the upper edge of the last is 8 kHz).
        htk: mel scale: HTK or Slaney.
        power_floor: added to the squared magnitude (FCPE: 1e-9).
        device: where the work is done.
    """

    bands = 128

    def __init__(self, *, low: float, htk: bool, power_floor: float = 0.0, device: torch.device | str = "cpu") -> None:
        self.filters = torch.from_numpy(mel_filters(16_000, N_FFT, self.bands, low, 8000, htk=htk)).to(device)
        self.window = torch.hann_window(N_FFT, device=device)
        self.power_floor = power_floor

    def __call__(self, padded: Tensor) -> Tensor:
        """Audio ``[samples]`` that carries its own padding -> log-mel ``[128, (samples - 1024) // 160 + 1]``."""
        frames = (len(padded) - N_FFT) // HOP + 1
        mel = torch.empty(self.bands, frames, device=padded.device)
        for start in range(0, frames, _BATCH):
            stop = min(start + _BATCH, frames)
            mel[:, start:stop] = self._block(padded[start * HOP : (stop - 1) * HOP + N_FFT])
        return mel

    def _block(self, padded: Tensor) -> Tensor:
        spectrum = torch.stft(padded, N_FFT, HOP, window=self.window, center=False, return_complex=True)
        if self.power_floor:
            magnitude = torch.sqrt(spectrum.real.square() + spectrum.imag.square() + self.power_floor)
        else:
            magnitude = spectrum.abs()
        return torch.log(torch.clamp(self.filters @ magnitude, min=FLOOR))


def pad_audio(audio: Tensor, left: int, right: int) -> Tensor:
    """``[samples]`` with ``left`` and ``right`` more samples: mirrored where the audio is long enough, else zeros."""
    mode = "reflect" if max(left, right) < len(audio) else "constant"
    return F.pad(audio[None], (left, right), mode=mode)[0]
