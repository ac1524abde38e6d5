"""How far two waves are apart, and the energy distance built on it."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from train_loops.bundle.sources import RATE

FLOOR = 1e-3


class SpectralDistance(nn.Module):
    """Mean difference of magnitudes and log magnitudes over several STFT resolutions, up to each item's band.

    Returns the spectra once, so that a distance between any two waves costs no more transforms.
    """

    def __init__(self, sizes: tuple[int, ...] = (2048, 768, 256), linear: float = 1.0) -> None:
        super().__init__()
        self.sizes, self.linear = sizes, linear
        for size in sizes:
            self.register_buffer(f"window_{size}", torch.hann_window(size))

    def spectra(self, wave: Tensor) -> list[Tensor]:
        """Wave ``[batch, samples]`` -> per resolution log and linear magnitudes, ``[2, batch, frames, bins]``.

        White noise of unit variance has magnitudes of about 1.
        """
        result = []
        for size in self.sizes:
            window = self.get_buffer(f"window_{size}")
            frames = wave.unfold(1, size, size // 4) * (window / window.square().sum().sqrt())
            power = torch.view_as_real(torch.fft.rfft(frames)).square().sum(-1)
            magnitude = torch.sqrt(power + FLOOR**2)
            result.append(torch.stack([magnitude.log(), self.linear * magnitude]))
        return result

    def forward(self, one: list[Tensor], other: list[Tensor], band: Tensor) -> Tensor:
        """Spectra of two waves, band ``[batch]`` in Hz -> distance."""
        total = one[0].new_zeros(())
        for a, b in zip(one, other, strict=True):
            hertz = torch.linspace(0, RATE / 2, a.shape[3])
            inside = (hertz[None] <= band[:, None]).to(a.dtype)
            gap = (a - b).abs().mean(2).sum(0)
            total = total + (gap * inside).sum() / inside.sum()
        return total / len(one)


def energy_distance(
    distance: SpectralDistance, target: Tensor, draws: tuple[Tensor, Tensor], band: Tensor, *, repulsion: float
) -> Tensor:
    """Spectral energy distance (Gritsenko et al. 2020) of two independent draws of the model from the target.

    The repulsion between the draws makes the expected loss smallest when noise has the right level, which a plain
    spectral distance does not.
    """
    truth = distance.spectra(target)
    first, second = distance.spectra(draws[0]), distance.spectra(draws[1])
    attraction = distance(first, truth, band) + distance(second, truth, band)
    return attraction - repulsion * distance(first, second, band)
