import numpy as np
import pytest
import torch

from rocktop_ray.models.singer import SingerConfig
from rocktop_ray.models.singer.filters import LOWEST, REFERENCE_RATE, SourceFilter, mel_spaced

CONFIG = SingerConfig(content_dim=8, width=8, dilations=(1,), core_hz=12_000.0)


def noise_only(level: float, frames: int) -> torch.Tensor:
    latent = torch.full((1, CONFIG.latent_dim, frames), LOWEST)
    latent[:, CONFIG.harmonic_bands :] = level
    return latent


def test_level_zero_leaves_the_excitation_as_it_is():
    synth = SourceFilter(CONFIG, REFERENCE_RATE)
    excitation = torch.randn(1, 41 * synth.hop, generator=torch.Generator().manual_seed(0))
    _, noise = synth.filters(noise_only(0.0, 40))
    wave = synth.join(synth.analyse(excitation) * noise)
    inner = slice(synth.hop, 40 * synth.hop)
    assert torch.allclose(wave[:, inner], excitation[:, inner], atol=1e-5)


@pytest.mark.parametrize("rate", [24_000, 48_000])
def test_the_filter_has_the_amplitudes_of_the_latent_and_rings_after_not_before(rate):
    synth = SourceFilter(CONFIG, rate)
    hertz = mel_spaced(0, CONFIG.core_hz, CONFIG.harmonic_bands)
    levels = -2 + 1.5 * np.cos(hertz / 900)
    latent = torch.full((1, CONFIG.latent_dim, 1), LOWEST)
    latent[0, : CONFIG.harmonic_bands, 0] = torch.tensor(levels)
    harmonic, _ = synth.filters(latent)
    bins = np.arange(harmonic.shape[2]) * rate / synth.size
    core = bins <= CONFIG.core_hz
    expected = np.interp(bins, hertz, levels) + 0.5 * np.log(rate / REFERENCE_RATE)
    assert np.abs(np.log(np.abs(harmonic[0, 0].numpy()[core])) - expected[core]).max() < 1e-4
    assert np.abs(harmonic[0, 0].numpy()[~core]).max(initial=0) == 0
    if rate == REFERENCE_RATE:
        answer = torch.fft.irfft(harmonic[0, 0], synth.size).square()
        assert answer[: synth.size // 2].sum() > 0.999 * answer.sum()


def test_a_level_is_the_same_loudness_at_both_rates():
    generator = torch.Generator().manual_seed(1)
    powers = []
    for rate in (24_000, 48_000):
        synth = SourceFilter(CONFIG, rate)
        latent = noise_only(-1.0, 200)
        latent[:, -CONFIG.high_bands :] = LOWEST
        _, noise = synth.filters(latent)
        wave = synth.join(synth.analyse(torch.randn(1, 201 * synth.hop, generator=generator)) * noise)
        powers.append(wave.square().mean().item())
    assert powers[0] == pytest.approx(powers[1], rel=0.1)
