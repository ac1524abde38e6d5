"""Convolutions of training over rows: torch's own, in value and in every gradient."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from toy_training import toy_batch, toy_recipe, toy_step

from rocktop_ray.models.rvc.discriminator import DiscriminatorConfig, MultiPeriodDiscriminator
from rocktop_ray.models.rvc.flow import Flow, PosteriorEncoder
from rocktop_ray.models.rvc.hifigan import HifiganDecoder
from rocktop_ray.models.rvc.weight_norm import add_weight_norm
from train_loops.rvc import row_networks
from train_loops.rvc.recipe import stock, tiny
from train_loops.rvc.row_networks import decoded, flowed, judged, posterior
from train_loops.rvc.rows import run_conv, short_conv, spectra_of, window_conv, window_matrix
from train_loops.rvc.step import PARTS


def given_randoms(seed: int, *shapes: tuple[int, ...]) -> list[torch.Tensor]:
    random = torch.Generator().manual_seed(seed)
    return [torch.randn(*shape, generator=random, dtype=torch.float64).requires_grad_() for shape in shapes]


def assert_alike(one: torch.Tensor, other: torch.Tensor, leaves: list[torch.Tensor]) -> None:
    """In value and in the gradients of a sum with random weights; float64, so that only mistakes show."""
    torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-9)
    weights = torch.randn(one.shape, generator=torch.Generator().manual_seed(1), dtype=one.dtype)
    found = torch.autograd.grad((one * weights).sum(), leaves)
    wanted = torch.autograd.grad((other * weights).sum(), leaves)
    for mine, theirs in zip(found, wanted, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-9, atol=1e-9)


@settings(max_examples=25, deadline=None)
@given(
    taps=st.sampled_from([1, 3, 5, 7, 9, 11]),
    dilation=st.integers(1, 5),
    rows=st.integers(1, 70),
    batch=st.integers(1, 3),
    rectified=st.booleans(),
    seed=st.integers(0, 99),
)
def test_short_convolutions_are_convolutions(taps, dilation, rows, batch, rectified, seed):
    x, weight, bias = given_randoms(seed, (batch, rows, 3), (4, 3, taps), (4,))
    slope = 0.1 if rectified else None
    heard = F.leaky_relu(x, slope) if rectified else x
    expected = F.conv1d(heard.mT, weight, bias, padding=taps // 2 * dilation, dilation=dilation).mT
    assert_alike(short_conv(x, weight, bias, dilation=dilation, slope=slope), expected, [x, weight, bias])


@pytest.mark.parametrize(
    ("channels", "rows", "taps", "dilation"), [(8, 40_000, 3, 1), (8, 40_000, 7, 3), (160, 1700, 5, 1)]
)
def test_blocks_join(channels, rows, taps, dilation):
    x, weight, bias, before = given_randoms(0, (2, rows, channels), (channels, channels, taps), (channels,), (1, 1, 1))
    expected = F.conv1d(F.leaky_relu(x, 0.1).mT, weight, bias, padding=taps // 2 * dilation, dilation=dilation).mT
    residual = before.expand_as(x)
    found = short_conv(x, weight, bias, dilation=dilation, slope=0.1, residual=residual)
    assert_alike(found, expected + residual, [x, weight, bias, before])


@settings(max_examples=25, deadline=None)
@given(
    taps=st.integers(1, 9),
    stride=st.integers(1, 6),
    padding=st.integers(0, 4),
    rows=st.integers(9, 60),
    seed=st.integers(0, 99),
)
def test_windows_are_strided_convolutions(taps, stride, padding, rows, seed):
    x, weight, bias = given_randoms(seed, (2, rows, 3), (4, 3, taps), (4,))
    expected = F.conv1d(x.mT, weight, bias, stride=stride, padding=padding).mT
    assert_alike(
        window_conv(x, window_matrix(weight), bias, taps=taps, stride=stride, padding=padding),
        expected,
        [x, weight, bias],
    )


@pytest.mark.parametrize(("rate", "taps"), [(12, 24), (10, 16), (2, 4), (6, 12), (4, 16), (3, 7)])
def test_runs_are_transposed_convolutions(rate, taps):
    x, weight, bias = given_randoms(0, (2, 9, 3), (3, 4, taps), (4,))
    extra = (taps - rate) % 2
    padding = (taps - rate + extra) // 2
    expected = F.conv_transpose1d(x.mT, weight, bias, rate, padding, extra).mT
    assert_alike(run_conv(x, weight, bias, rate=rate, padding=padding), expected, [x, weight, bias])


def test_a_frozen_weight_gets_no_gradient_and_passes_its_inputs_on():
    x, weight, bias = given_randoms(0, (2, 30, 3), (4, 3, 5), (4,))
    (expected,) = torch.autograd.grad(short_conv(x, weight, bias).square().sum(), x)
    for spectra in (None, spectra_of(weight.detach())):
        made = short_conv(x, weight.detach(), bias.detach(), spectra=spectra)
        (found,) = torch.autograd.grad(made.square().sum(), x)
        assert torch.equal(expected, found)


def relative(one: torch.Tensor, other: torch.Tensor) -> float:
    return float((one - other).norm() / (other.norm() + 1e-12))


@pytest.mark.parametrize(("batch", "samples"), [(3, 8640), (1, 8640), (1, 9100)])
def test_discriminators_judge_the_same_by_rows(batch, samples):
    """To the rounding of float32: features 1e-5, gradients 1e-4 of their norm."""
    torch.manual_seed(0)
    config = DiscriminatorConfig((2, 5, 37), (16, 32, 32, 32, 32), (16, 16, 16, 32, 32, 32), (1, 4, 4, 4, 4, 1))
    network = MultiPeriodDiscriminator(config)
    add_weight_norm(network)
    wave = (torch.randn(batch, 1, samples) * 0.1).requires_grad_()
    leaves = [wave, *network.parameters()]
    found, expected = judged(network, wave), network(wave)
    for mine, theirs in zip(found, expected, strict=True):
        assert [each.shape for each in mine] == [each.shape for each in theirs]
        assert all(relative(one, other) < 1e-5 for one, other in zip(mine, theirs, strict=True))
    gradients = [
        torch.autograd.grad(sum(layer.square().mean() for judge in made for layer in judge), leaves)
        for made in (found, expected)
    ]
    assert all(relative(one, other) < 1e-4 for one, other in zip(*gradients, strict=True))
    network.requires_grad_(False)
    ready: row_networks.Ready = {}
    for _ in range(2):
        again = judged(network, wave, ready)
        assert all(
            torch.equal(one, other) for a, b in zip(found, again, strict=True) for one, other in zip(a, b, strict=True)
        )
        (slope,) = torch.autograd.grad(sum(layer.square().mean() for judge in again for layer in judge), wave)
        assert relative(slope, gradients[0][0]) < 1e-6


@pytest.mark.parametrize("name", ["v2-48k", "v1-40k", "v2-32k"])
@pytest.mark.parametrize("kind", ["f0", "no f0", "mrf", "resblock 2"])
def test_decoders_make_the_same_wave_by_rows(name, kind):
    if name != "v2-48k" and kind != "f0":
        pytest.skip("one stock configuration shows it")
    recipe = tiny(name, f0=kind != "no f0")
    config = replace(recipe.synthesizer, upsample_initial_channel=256)
    config = replace(config, decoder="mrf-hifigan") if kind == "mrf" else config
    config = replace(config, resblock="2") if kind == "resblock 2" else config
    torch.manual_seed(0)
    decoder = HifiganDecoder(config)
    add_weight_norm(decoder)
    latent = torch.randn(2, config.inter_channels, 13, requires_grad=True)
    speaker = torch.randn(2, config.gin_channels, 1)
    sines = torch.randn(2, 13 * config.hop, 1 + decoder.overtones) * 0.1 if config.uses_f0 else None
    leaves = [latent, *decoder.parameters()]
    found, expected = decoded(decoder, latent, speaker, sines), decoder(latent, speaker, sines)
    assert found.shape == expected.shape
    assert relative(found, expected) < 1e-5
    gradients = [torch.autograd.grad(wave.square().sum(), leaves) for wave in (found, expected)]
    assert all(relative(one, other) < 1e-4 for one, other in zip(*gradients, strict=True))


def test_encoder_and_flow_are_the_same_by_rows():
    """Lengths differ: what lies in the padding counts nowhere."""
    config = replace(tiny().synthesizer, inter_channels=32, hidden_channels=24)
    torch.manual_seed(0)
    encoder, flow = PosteriorEncoder(config), Flow(config)
    for network in (encoder, flow):
        add_weight_norm(network)
    spectrogram = torch.randn(2, config.spec_channels, 45)
    speaker = torch.randn(2, config.gin_channels, 1)
    mask = (torch.arange(45) < torch.tensor([[45], [31]]))[:, None].float()
    latent = torch.randn(2, 32, 45, requires_grad=True)
    for network, heard, by_rows in ((encoder, spectrogram, posterior), (flow, latent, flowed)):
        found, expected = by_rows(network, heard, speaker, mask), network(heard, speaker, mask)
        if network is encoder:
            found, expected = torch.cat(found), torch.cat(expected)
        assert relative(found, expected) < 1e-5
        leaves = list(network.parameters())
        gradients = [torch.autograd.grad(made.square().sum(), leaves) for made in (found, expected)]
        assert all(relative(one, other) < 1e-4 for one, other in zip(*gradients, strict=True))


def test_a_step_by_rows_is_the_step_of_the_modules(monkeypatch):
    """Losses to 1e-4 after three steps: AdamW turns rounding of small gradients into small steps."""
    recipe = toy_recipe()
    recipe = replace(recipe, optimizer=replace(recipe.optimizer, learning_rate=1e-4))
    batch = toy_batch(recipe)
    reports = []
    for by_rows in (True, False):
        monkeypatch.setattr(row_networks, "suits", lambda x, by_rows=by_rows: by_rows)
        step = toy_step(recipe)
        reports.append([step.run([batch], step=number, epoch=0) for number in range(3)])
    for one, other in zip(*reports, strict=True):
        for part in ("discriminator", "adversarial", "feature", "mel", "kl"):
            assert getattr(one, part) == pytest.approx(getattr(other, part), rel=1e-4), part
        assert all(
            getattr(one, f"{part}_norm") == pytest.approx(getattr(other, f"{part}_norm"), rel=1e-3) for part in PARTS
        )


def test_rows_are_for_float32_on_processors():
    x = torch.zeros(1)
    assert row_networks.suits(x)
    assert not row_networks.suits(x.half())
    with torch.autocast("cpu", torch.bfloat16):
        assert not row_networks.suits(x)
    assert stock("v2-48k").precision == "fp32"
