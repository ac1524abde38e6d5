"""Log-mel front ends of the neural pitch extractors: magnitude STFT, Slaney-normalised triangles, natural log."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from rocktop_ray.audio.mel import mel_filters
from rocktop_ray.features.pitch.checks import HOP
from rocktop_ray.protocols import ENCODER_RATE

N_FFT = 1024
FLOOR = 1e-5
_BATCH = 4000


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
        self.filters = torch.from_numpy(mel_filters(ENCODER_RATE, N_FFT, self.bands, low, 8000, htk=htk)).to(device)
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
