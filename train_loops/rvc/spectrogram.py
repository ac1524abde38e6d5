"""The spectrograms of training, as RVC's trainers compute them.

Frame ``k`` of a wave is centred on the middle of its 10 ms: the wave is mirrored by ``(n_fft - hop) / 2`` samples at
both ends and then cut without further padding, so ``n`` samples make ``n // hop`` frames. Magnitudes are
``sqrt(re^2 + im^2 + 1e-6)`` of a periodic Hann window, not normalised; log-mel values are ``ln(max(mel, 1e-5))`` with
Slaney's filters of unit area.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rocktop_ray.audio.mel import mel_filters
from train_loops.rvc.recipe import Recipe

POWER_FLOOR = 1e-6
MEL_FLOOR = 1e-5


class Spectra(nn.Module):
    """Wave to linear spectrogram to log-mel spectrogram, in float32. Nothing in it is trained."""

    def __init__(self, recipe: Recipe) -> None:
        super().__init__()
        spectrum, rate = recipe.spectrum, recipe.synthesizer.sample_rate
        self.n_fft, self.hop = spectrum.n_fft, recipe.hop
        high = rate / 2 if spectrum.mel_high is None else spectrum.mel_high
        filters = mel_filters(rate, self.n_fft, spectrum.mel_bands, spectrum.mel_low, high, htk=False)
        self.register_buffer("window", torch.hann_window(self.n_fft), persistent=False)
        self.register_buffer("filters", torch.from_numpy(filters), persistent=False)

    def linear(self, wave: Tensor) -> Tensor:
        """Wave ``[batch, samples]`` -> magnitudes ``[batch, n_fft // 2 + 1, samples // hop]``.

        Needs more than ``(n_fft - hop) / 2`` samples.
        """
        edge = (self.n_fft - self.hop) // 2
        mirrored = F.pad(wave.float()[:, None], (edge, edge), "reflect")[:, 0]
        window = self.get_buffer("window")
        parts = torch.stft(mirrored, self.n_fft, self.hop, window=window, center=False, return_complex=True)
        return (torch.view_as_real(parts).square().sum(-1) + POWER_FLOOR).sqrt()

    def log_mel(self, linear: Tensor) -> Tensor:
        """Magnitudes ``[batch, bins, frames]`` -> ``[batch, mel_bands, frames]``."""
        return (self.get_buffer("filters") @ linear.float()).clamp_min(MEL_FLOOR).log()
