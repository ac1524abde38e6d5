"""What the listener hears: log-mel spectra of a short and of a long window, and an autocorrelation for the pitch.

Row j is of audio up to sample 160 * (j + 1), not a sample more. The long window (64 ms) is centred 32 samples before
sample 160 * (j - 2), so with a lag of two rows it stands around the frame that it is for.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from rocktop_ray.audio.mel import mel_filters
from rocktop_ray.protocols import ENCODER_RATE

HOP = 160
SHORT, LONG = 400, 1024
"""Samples of the two windows."""
SHORT_BANDS, LONG_BANDS = 80, 96
LONG_TOP = 5000.0
"""Hz of the highest band of the long window."""
BINS = 288
"""Pitch classes, ``CENTS`` apart."""
CENTS = 20.0
LOWEST_HZ = 50.0
"""Pitch of class 0; the highest is 1376 Hz."""
_PARTIALS = 257
"""Bins of the spectrum that the autocorrelation is made of: up to 4 kHz."""
_FLOOR = 1e-8


def class_hz(classes: Tensor) -> Tensor:
    """Pitch classes, also between whole ones, to Hz."""
    return LOWEST_HZ * torch.exp2(classes * (CENTS / 1200))


class Front(nn.Module):
    """Spectra without weights."""

    short_window: Tensor
    long_window: Tensor
    short_bands: Tensor
    long_bands: Tensor
    waves: Tensor

    def __init__(self) -> None:
        super().__init__()

        def keep(name: str, table: Tensor) -> None:
            self.register_buffer(name, table.float(), persistent=False)

        keep("short_window", torch.hann_window(SHORT))
        keep("long_window", torch.hann_window(LONG))
        # The short window is read with zeros around it, so that both spectra have the same bins.
        keep("short_bands", torch.from_numpy(mel_filters(ENCODER_RATE, LONG, SHORT_BANDS, 0, 8000, htk=False)).T)
        keep("long_bands", torch.from_numpy(mel_filters(ENCODER_RATE, LONG, LONG_BANDS, 40, LONG_TOP, htk=True)).T)
        lags = ENCODER_RATE / class_hz(torch.arange(BINS, dtype=torch.float64))
        turns = torch.arange(_PARTIALS, dtype=torch.float64)[:, None] * lags[None] / LONG
        keep("waves", torch.cos(2 * math.pi * turns))

    @property
    def before(self) -> int:
        """Samples before a block that its first row hears."""
        return LONG - HOP

    def forward(self, audio: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Audio ``[batch, before + n * 160]`` at 16 kHz -> rows ``[batch, n, ..]``.

        Log-mel of the short window ``[80]``, of the long one ``[96]``, both about -1 to 1, and the autocorrelation at
        the period of each pitch class ``[288]``, -1 to 1.
        """
        heard = audio.unfold(1, LONG, HOP)
        long = torch.fft.rfft(heard * self.long_window)
        short = torch.fft.rfft(heard[..., LONG - SHORT :] * self.short_window, LONG)
        power = long.real.square() + long.imag.square()
        brief = short.real.square() + short.imag.square()
        level = power[..., :_PARTIALS].sqrt()
        likeness = (level @ self.waves) / (level.sum(-1, keepdim=True) + 1e-3)
        return _log(brief @ self.short_bands), _log(power @ self.long_bands), likeness


def _log(power: Tensor) -> Tensor:
    """Power in bands -> log scale; 1e-8 and below become -1."""
    return (torch.log10(power.clamp_min(_FLOOR)) + 4) / 4
