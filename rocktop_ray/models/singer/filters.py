"""Latent frames to filters, and filtering in the spectral domain.

A latent frame holds log amplitudes (natural) at fixed frequencies: first of the harmonic, then of the noise filter.
Between them the log amplitude is interpolated; the phase is the minimum phase that belongs to it. Level 0 leaves a unit
white noise sampled at ``REFERENCE_RATE`` as it is.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from rocktop_ray.models.singer.network import SingerConfig

REFERENCE_RATE = 24_000
LOWEST, HIGHEST = -16.0, 4.0
"""Range of log amplitudes; the harmonic filter is at the lowest above the core band."""
TAIL_BLOCKS = 4
"""A filtered frame spans this many hops: two of excitation and two in which the filter rings out."""


def mel_spaced(low: float, high: float, count: int) -> npt.NDArray[np.float64]:
    """``count`` frequencies in Hz from ``low`` to ``high``, evenly spaced on the (HTK) mel scale."""
    first, last = (2595 * math.log10(1 + hertz / 700) for hertz in (low, high))
    return np.asarray(700 * (10 ** (np.linspace(first, last, count) / 2595) - 1))


def interpolation(places: npt.NDArray[np.float64], bins: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Matrix ``[places, bins]`` that interpolates levels given at ``places`` (Hz) to ``bins`` (Hz), flat outside."""
    return np.stack([np.interp(bins, places, row) for row in np.eye(len(places))])


def minimum_phase(levels: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Phase in radians of the minimum-phase filter with log amplitudes ``[n, bins]`` (linear in them)."""
    size = 2 * (levels.shape[1] - 1)
    cepstrum = np.fft.irfft(levels, size)
    fold = np.zeros(size)
    fold[0] = fold[size // 2] = 1.0
    fold[1 : size // 2] = 2.0
    return np.asarray(np.fft.rfft(cepstrum * fold).imag)


class SourceFilter(nn.Module):
    """Applies latent frames to excitations at one sample rate."""

    window: Tensor
    harmonic_level: Tensor
    harmonic_phase: Tensor
    noise_level: Tensor
    noise_phase: Tensor

    def __init__(self, config: SingerConfig, sample_rate: int) -> None:
        super().__init__()
        self.config = config
        self.hop = sample_rate // 100
        self.size = TAIL_BLOCKS * self.hop
        self.log_gain = 0.5 * math.log(sample_rate / REFERENCE_RATE)
        bins = np.arange(self.size // 2 + 1) * sample_rate / self.size
        harmonic = interpolation(mel_spaced(0, config.core_hz, config.harmonic_bands), bins)
        low = mel_spaced(0, config.core_hz, config.noise_bands)
        high = mel_spaced(config.core_hz, 24_000, config.high_bands + 1)[1:]
        noise = interpolation(np.concatenate([low, high]), bins)
        for name, table in (("harmonic", harmonic), ("noise", noise)):
            self.register_buffer(f"{name}_level", torch.tensor(table, dtype=torch.float32), persistent=False)
            phase = torch.tensor(minimum_phase(table), dtype=torch.float32)
            self.register_buffer(f"{name}_phase", phase, persistent=False)
        self.register_buffer("beyond", torch.tensor(bins > config.core_hz), persistent=False)
        self.register_buffer("window", torch.hann_window(2 * self.hop, periodic=True), persistent=False)

    def filters(self, latent: Tensor) -> tuple[Tensor, Tensor]:
        """Latent ``[batch, latent_dim, frames]`` -> complex harmonic and noise filters ``[batch, frames, bins]``."""
        levels = latent.transpose(1, 2).clamp(LOWEST, HIGHEST)
        split = self.config.harmonic_bands
        harmonic, noise = levels[..., :split], levels[..., split:]
        amplitude = torch.exp(harmonic @ self.harmonic_level + self.log_gain)
        amplitude = amplitude.masked_fill(self.get_buffer("beyond"), 0.0)
        return (
            torch.polar(amplitude, harmonic @ self.harmonic_phase),
            torch.polar(torch.exp(noise @ self.noise_level + self.log_gain), noise @ self.noise_phase),
        )

    def analyse(self, excitation: Tensor) -> Tensor:
        """Excitation ``[batch, (frames + 1) * hop]`` from one hop before frame 0 -> spectra ``[batch, frames, bins]``.

        Frame i is the excitation around sample i * hop, windowed; the windows of neighbouring frames add up to one.
        """
        blocks = excitation.unflatten(1, (-1, self.hop))
        return torch.fft.rfft(torch.cat([blocks[:, :-1], blocks[:, 1:]], -1) * self.window, self.size)

    def join(self, spectra: Tensor) -> Tensor:
        """Filtered spectra ``[batch, frames, bins]`` -> wave ``[batch, (frames + 3) * hop]``, from one hop earlier."""
        blocks = torch.fft.irfft(spectra, self.size).unflatten(2, (TAIL_BLOCKS, self.hop))
        frames = blocks.shape[1]
        wave = blocks.new_zeros(blocks.shape[0], frames + TAIL_BLOCKS - 1, self.hop)
        for block in range(TAIL_BLOCKS):
            wave[:, block : block + frames] += blocks[:, :, block]
        return wave.flatten(1)
