"""What a training step is made of: discriminators, spectrograms, losses, recipes, examples, batches."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import librosa
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from toy_training import buzz, toy_batch, toy_examples, toy_recipe

from rocktop_ray.errors import SettingsError, TrainingError, VoiceFormatError
from rocktop_ray.models.rvc.discriminator import (
    PERIODS,
    DiscriminatorConfig,
    MultiPeriodDiscriminator,
)
from rocktop_ray.models.rvc.weight_norm import add_weight_norm, weights_by_file_name
from train_loops.rvc import losses
from train_loops.rvc.batches import BOUNDARIES, BatchPlan, collate, parts, share
from train_loops.rvc.draws import draw
from train_loops.rvc.examples import Preparation
from train_loops.rvc.networks import fresh
from train_loops.rvc.recipe import STOCK, Recipe, small, stock, tiny
from train_loops.rvc.spectrogram import Spectra

# --- discriminators -------------------------------------------------------------------------------------------------


def published_layout(periods: int) -> dict[str, tuple[int, ...]]:
    """Names and shapes in RVC's D_*.pth: bias, weight_g, weight_v of each layer."""
    scale = [(16, 1, 15), (64, 4, 41), (256, 4, 41), (1024, 4, 41), (1024, 4, 41), (1024, 1024, 5)]
    period = [(32, 1, 5, 1), (128, 32, 5, 1), (512, 128, 5, 1), (1024, 512, 5, 1), (1024, 1024, 5, 1)]
    layout = {}
    for index in range(1 + periods):
        shapes, post = (period, (1, 1024, 3, 1)) if index else (scale, (1, 1024, 3))
        for name, shape in [*((f"convs.{i}", each) for i, each in enumerate(shapes)), ("conv_post", post)]:
            start = f"discriminators.{index}.{name}"
            layout[f"{start}.bias"] = shape[:1]
            layout[f"{start}.weight_g"] = (shape[0], *(1 for _ in shape[1:]))
            layout[f"{start}.weight_v"] = shape
    return layout


@pytest.mark.parametrize(("version", "keys", "count"), [("v1", 129, 54_968_286), ("v2", 165, 71_410_594)])
def test_discriminators_have_the_published_names_shapes_and_sizes(version, keys, count):
    with torch.device("meta"):
        network = MultiPeriodDiscriminator(DiscriminatorConfig(periods=PERIODS[version]))
    add_weight_norm(network)
    found = {name: tuple(weight.shape) for name, weight in weights_by_file_name(network).items()}
    assert list(found.items()) == list(published_layout(len(PERIODS[version])).items())
    assert len(found) == keys
    assert sum(weight.numel() for weight in network.parameters()) == count


def test_a_discriminators_items_are_independent_and_its_layers_as_long_as_published():
    network = MultiPeriodDiscriminator(DiscriminatorConfig((2, 5), (2,) * 5, (2,) * 6, (1, 2, 2, 2, 2, 1)))
    wave = torch.randn(2, 1, 1283)
    together, alone = network(wave), network(wave[1:])
    for judge, single in zip(together, alone, strict=True):
        for layer, other in zip(judge, single, strict=True):
            assert torch.allclose(layer[1:], other, atol=1e-6)
    assert [tuple(layer.shape[2:]) for layer in together[2]] == [(86, 5), (29, 5), (10, 5), (4, 5), (4, 5), (4, 5)]
    assert [layer.shape[2] for layer in together[0]] == [1283, 321, 81, 21, 6, 6, 6]


def test_a_discriminator_that_cannot_be_built_says_why():
    with pytest.raises(VoiceFormatError, match="does not divide"):
        DiscriminatorConfig(scale_groups=(1, 3, 16, 64, 256, 1))
    with pytest.raises(VoiceFormatError, match="5 numbers"):
        DiscriminatorConfig(period_channels=(32, 128))


# --- spectrograms ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["v2-48k", "v1-32k", "v1-40k", "v2-24k"])
def test_spectrograms_are_those_of_the_definition(name):
    recipe = stock(name)
    n_fft, hop, rate = recipe.spectrum.n_fft, recipe.hop, recipe.synthesizer.sample_rate
    wave = np.random.default_rng(0).standard_normal(12 * hop + 7).astype(np.float32) * 0.1
    spectra = Spectra(recipe)
    linear = spectra.linear(torch.from_numpy(wave)[None])
    assert tuple(linear.shape) == (1, n_fft // 2 + 1, 12)
    edge = (n_fft - hop) // 2
    mirrored = np.pad(wave.astype(np.float64), edge, "reflect")
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(n_fft) / n_fft)
    frames = np.stack([np.fft.rfft(mirrored[k * hop : k * hop + n_fft] * window) for k in range(12)], 1)
    expected = np.sqrt(np.abs(frames) ** 2 + 1e-6)
    assert np.abs(linear[0].numpy() - expected).max() < 1e-4
    filters = librosa.filters.mel(sr=rate, n_fft=n_fft, n_mels=recipe.spectrum.mel_bands, fmin=0, fmax=None)
    mel = np.log(np.maximum(filters @ expected, 1e-5))
    assert np.abs(spectra.log_mel(linear)[0].numpy() - mel).max() < 1e-3


def test_silence_has_the_floor_of_the_definition():
    recipe = stock("v2-48k")
    spectra = Spectra(recipe)
    linear = spectra.linear(torch.zeros(1, 4800))
    assert torch.allclose(linear, torch.tensor(1e-3))
    mel = torch.log((1e-3 * spectra.get_buffer("filters").sum(1)).clamp_min(1e-5))
    assert torch.allclose(spectra.log_mel(linear)[0], mel[:, None])
    assert float(spectra.log_mel(torch.zeros(1, 1025, 1)).max()) == pytest.approx(math.log(1e-5))


# --- losses ---------------------------------------------------------------------------------------------------------


def verdicts(*values: list[list[float]]) -> list[list[torch.Tensor]]:
    return [[torch.zeros(len(value), 3), torch.tensor(value)] for value in values]


def test_adversarial_losses_by_hand():
    real = verdicts([[1.0, 0.0], [0.5, 1.0]], [[2.0], [1.0]])
    made = verdicts([[0.0, 1.0], [0.0, 0.0]], [[1.0], [3.0]])
    # first: ((0 + 1) + (0 + 1)) / 2 + (0.25 + 0) / 2; second: (1 + 1) + (0 + 9)
    assert float(losses.discriminator_loss(real, made)) == pytest.approx(1.0 + 0.125 + 11)
    assert float(losses.adversarial_loss(made)) == pytest.approx((1 + 0) / 2 + (1 + 1) / 2 + 0 + 4)


def test_feature_and_mel_losses_by_hand():
    real = [[torch.tensor([[1.0, 2.0], [3.0, 4.0]]), torch.tensor([[0.0], [0.0]])]]
    made = [[torch.tensor([[0.0, 2.0], [3.0, 0.0]], requires_grad=True), torch.tensor([[1.0], [-2.0]])]]
    assert losses.feature_loss(real, made).item() == pytest.approx(0.5 + 2 + 1 + 2)
    assert float(losses.mel_loss(torch.ones(2, 3, 4), torch.full((2, 3, 4), 1.5))) == pytest.approx(1.0)


@given(st.integers(0, 1000))
@settings(max_examples=10, deadline=None)
def test_losses_over_counts_are_the_references_means(seed):
    random = torch.Generator().manual_seed(seed)

    def draw_of(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=random)

    real = [[draw_of(3, 4, 5), draw_of(3, 1, 7)], [draw_of(3, 2, 2, 3), draw_of(3, 1, 2, 3)]]
    made = [[draw_of(3, 4, 5), draw_of(3, 1, 7)], [draw_of(3, 2, 2, 3), draw_of(3, 1, 2, 3)]]
    means = sum(((1 - r[-1]) ** 2).mean() + (g[-1] ** 2).mean() for r, g in zip(real, made, strict=True))
    assert float(losses.discriminator_loss(real, made)) / 3 == pytest.approx(float(means), rel=1e-5)
    match = sum((a - b).abs().mean() for r, g in zip(real, made, strict=True) for a, b in zip(r, g, strict=True))
    assert float(losses.feature_loss(real, made)) / 3 == pytest.approx(float(match), rel=1e-5)


def test_divergence_is_that_of_two_gaussians_and_ignores_padding():
    """The mean of the estimate over many draws of the posterior is the closed form of KL(q, p)."""
    random = torch.Generator().manual_seed(0)
    mean_q, log_q, mean_p, log_p = 0.3, -0.5, -0.2, 0.1
    draws = mean_q + math.exp(log_q) * torch.randn(1, 1, 400_000, generator=random)
    mask = torch.ones(1, 1, 400_000)
    mask[..., 300_000:] = 0
    flat = torch.ones_like(draws)
    total = losses.kl_loss(draws, log_q * flat, mean_p * flat, log_p * flat, mask)
    exact = log_p - log_q - 0.5 + (math.exp(2 * log_q) + (mean_q - mean_p) ** 2) / (2 * math.exp(2 * log_p))
    assert float(total) / 300_000 == pytest.approx(exact, abs=0.003)


# --- recipes --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", STOCK)
def test_recipes_survive_plain_data(name):
    for recipe in (stock(name), tiny(name, f0=False)):
        assert Recipe.from_mapping(json.loads(json.dumps(recipe.as_mapping()))) == recipe


def test_the_small_recipe_is_small_and_survives_plain_data():
    recipe = small(f0=False, speakers=3)
    assert Recipe.from_mapping({"stock": "small", "f0": False, "speakers": 3}) == recipe
    assert Recipe.from_mapping(json.loads(json.dumps(recipe.as_mapping()))) == recipe
    generator, discriminator = fresh(small())
    count = {name: weight.numel() for name, weight in generator.named_parameters()}
    voice = sum(size for name, size in count.items() if not name.startswith("enc_q."))
    assert 1e6 < voice < 3e6
    assert sum(weight.numel() for weight in discriminator.parameters()) < 1e5
    assert (recipe.synthesizer.sample_rate, recipe.hop, recipe.synthesizer.content_dim) == (48_000, 480, 768)


def test_a_fresh_voice_hears_its_source():
    generator, _ = fresh(small())
    sine = 0.1 * torch.sin(torch.linspace(0, 20, 4000))
    heard = generator.dec.m_source(sine[None, :, None])
    assert float(heard.detach().max()) == pytest.approx(math.tanh(1), abs=1e-3)
    assert float(heard.detach().min()) == pytest.approx(-math.tanh(1), abs=1e-3)


def test_stock_values_are_the_published_ones():
    recipe = stock("v2-48k")
    assert (recipe.segment_samples, recipe.hop, recipe.spectrum.n_fft) == (17280, 480, 2048)
    segments = {name: stock(name).segment_samples for name in STOCK}
    assert segments == {
        "v1-32k": 12800,
        "v1-40k": 12800,
        "v1-48k": 11520,
        "v2-24k": 8640,
        "v2-32k": 12800,
        "v2-40k": 12800,
        "v2-48k": 17280,
    }
    assert recipe.learning_rate(0) == 1e-4
    assert recipe.learning_rate(2) == 1e-4 * 0.999875**2
    assert (recipe.losses.mel, recipe.losses.kl, recipe.losses.feature) == (45, 1, 2)


def test_a_stock_configuration_can_be_changed_by_name():
    changes = {"stock": "v1-40k", "f0": False, "speakers": 3, "batch_size": 8, "optimizer": {"learning_rate": 2e-4}}
    recipe = Recipe.from_mapping(changes)
    assert (recipe.synthesizer.uses_f0, recipe.synthesizer.speakers, recipe.batch_size) == (False, 3, 8)
    assert (recipe.optimizer.learning_rate, recipe.optimizer.beta1) == (2e-4, 0.8)


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"stock": "v2-48k", "bach_size": 8}, "unknown settings bach_size"),
        ({"stock": "v2-48k", "optimizer": {"lr": 1}}, "unknown settings optimizer.lr"),
        ({"stock": "v2-44k"}, "no stock configuration"),
        ({"stock": "v2-48k", "batch_size": "8"}, "batch_size must be int"),
        ({"stock": "v2-48k", "precision": "fp8"}, "precision must be"),
        ({"stock": "v2-48k", "segment_frames": 1}, "too short for n_fft"),
        ({"stock": "v2-48k", "spectrum": {"n_fft": 1024}}, "spec_channels is 1025"),
        ({"stock": "v2-48k", "synthesizer": {"sample_rate": 44000}}, "do not multiply"),
        ({"batch_size": 8}, "lacks synthesizer"),
        ({"f0": True}, "give 'stock' too"),
    ],
)
def test_wrong_recipes_are_refused_with_a_reason(values, says):
    with pytest.raises(SettingsError, match=says) as caught:
        Recipe.from_mapping(values)
    assert caught.value.stage == "training"


# --- examples -------------------------------------------------------------------------------------------------------


def test_an_example_is_cut_to_what_all_its_parts_have():
    recipe = toy_recipe()
    example = buzz(recipe, 30, 220, 1)
    prepared = Preparation(recipe).prepare(example)
    assert prepared.frames == 30
    assert prepared.units.shape == (30, 256)
    assert torch.equal(prepared.units[0::2], prepared.units[1::2])
    assert prepared.spectrogram.shape == (129, 30)
    assert prepared.wave.shape == (30 * 80,)
    assert set(prepared.pitch.tolist()) == {1, 60}  # unvoiced, 220 Hz
    whole = Spectra(recipe).linear(torch.from_numpy(example.wave)[None])[0, :, :30]
    assert torch.allclose(prepared.spectrogram[:, :29], whole[:, :29], atol=1e-5)
    shorter = replace(example, f0=example.f0[:21])
    assert Preparation(recipe).prepare(shorter).frames == 21
    assert Preparation(replace(recipe, max_frames=17)).prepare(example).frames == 17


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"units": np.zeros((20, 768), np.float32)}, "expected .n, 256."),
        ({"f0": None}, "no F0"),
        ({"speaker": 2}, "speaker 2"),
        ({"wave": np.full(3000, np.nan, np.float32)}, "wave holds"),
        ({"wave": np.zeros(800, np.float32)}, "less than a segment"),
    ],
)
def test_examples_that_do_not_fit_are_named(change, says):
    recipe = toy_recipe()
    with pytest.raises(TrainingError, match=f"buzz 220 Hz cannot be trained on: .*{says}"):
        Preparation(recipe).prepare(replace(buzz(recipe, 30, 220, 0), **change))


# --- batches --------------------------------------------------------------------------------------------------------


@given(st.lists(st.integers(1, 1000), min_size=1, max_size=60), st.integers(1, 9), st.integers(0, 5))
@settings(max_examples=60, deadline=None)
def test_an_epoch_holds_every_example_once_in_like_lengths(lengths, size, epoch):
    if max(lengths) < 20:
        with pytest.raises(TrainingError, match="none of the"):
            BatchPlan(lengths, size, seed=3, shortest=20)
        return
    plan = BatchPlan(lengths, size, seed=3, shortest=20)
    batches = plan.epoch(epoch)
    members = [member for batch in batches for member in batch.members]
    assert sorted([*members, *plan.too_short]) == list(range(len(lengths)))
    assert all(lengths[number] < 20 for number in plan.too_short)
    assert len(batches) == plan.batches_per_epoch
    assert sum(len(batch.members) != size for batch in batches) <= 1
    edges = (0, *BOUNDARIES, 10**9)
    bucket = [next(i for i in range(len(edges)) if edges[i] < n <= edges[i + 1]) for n in lengths]
    mixed = [batch for batch in batches if len({bucket[member] for member in batch.members}) > 1]
    assert len(mixed) <= len(set(bucket))
    assert [batch.step for batch in batches] == [epoch * plan.batches_per_epoch + i for i in range(len(batches))]
    assert plan.counts(batches[0]).frames == sum(lengths[member] for member in batches[0].members)


def test_a_plan_can_be_walked_from_any_step_and_differs_by_epoch():
    plan = BatchPlan([60] * 23, 4, seed=1)
    walk = plan.walk()
    straight = [next(walk) for _ in range(20)]
    later = plan.walk(8)
    assert [next(later) for _ in range(12)] == straight[8:]
    assert plan.epoch(0) != plan.epoch(1)
    assert plan.epoch(0) != BatchPlan([60] * 23, 4, seed=2).epoch(0)
    assert plan.fingerprint() != BatchPlan([60] * 22 + [61], 4, seed=1).fingerprint()


@given(st.integers(0, 200), st.lists(st.floats(0, 100), min_size=1, max_size=8).filter(lambda s: sum(s) > 0.01))
@settings(max_examples=60, deadline=None)
def test_shares_cover_a_batch_exactly_once_in_proportion(count, shares):
    ranges = share(count, shares)
    assert [slot for each in ranges for slot in each] == list(range(count))
    for each, wanted in zip(ranges, shares, strict=True):
        assert abs(len(each) - count * wanted / sum(shares)) < 1 + 1e-6


def test_shares_and_parts_in_odd_cases():
    assert [len(each) for each in share(7, [2, 1])] == [5, 2]
    assert parts(range(4, 9), 2) == [range(4, 7), range(7, 9)]
    assert parts(range(3, 5), 4) == [range(3, 4), range(4, 5)]
    assert parts(range(3, 3), 2) == []
    for shares in ([], [0.0], [1.0, -1.0], [math.nan]):
        with pytest.raises(SettingsError):
            share(4, shares)


def test_a_batch_is_padded_with_zeros_and_masked():
    recipe = toy_recipe()
    batch = toy_batch(recipe, 3)
    assert batch.units.shape == (3, 32, 256)
    assert batch.wave.shape == (3, 32 * 80)
    assert batch.mask.sum((1, 2)).tolist() == [20, 26, 32]
    for values in (batch.units[0, 20:], batch.spectrogram[0, :, 20:], batch.wave[0, 20 * 80 :], batch.f0[0, 20:]):
        assert not values.any()
    assert toy_batch(toy_recipe(f0=False), 1).f0 is None


def test_draws_belong_to_a_slot_not_to_a_batch():
    recipe = toy_recipe()
    examples = toy_examples(recipe)
    whole = draw(recipe, collate(examples, range(4)), 3, harmonics=1)
    single = draw(recipe, collate(examples[2:3], [2]), 3, harmonics=1)
    assert single.starts == whole.starts[2:3]
    assert torch.equal(single.posterior[0], whole.posterior[2, :, :32])
    assert torch.equal(single.source[0], whole.source[2])
    assert not whole.posterior[0, :, 20:].any()
    assert draw(recipe, collate(examples, range(4)), 4, harmonics=1).starts != whole.starts
    starts = [draw(recipe, collate(examples[:1], [0]), step, harmonics=1).starts[0] for step in range(120)]
    assert set(starts) == set(range(20 - 16 + 1))


def test_fresh_networks_depend_on_the_seed_only():
    recipe = toy_recipe()
    torch.manual_seed(5)
    state = torch.get_rng_state()
    one = fresh(recipe)[0].state_dict()
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(6)
    other = fresh(recipe)[0].state_dict()
    assert all(torch.equal(one[name], other[name]) for name in one)
    third = fresh(replace(recipe, seed=9))[0].state_dict()
    assert not torch.equal(one["enc_p.proj.weight"], third["enc_p.proj.weight"])
