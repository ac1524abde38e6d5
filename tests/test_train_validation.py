"""Validation: which slices are heard, what the score says, and that training goes on as if there had been none."""

from __future__ import annotations

import logging
import math
import re
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch
from dataset_parts import RATE, job, song, write
from hypothesis import given, settings
from hypothesis import strategies as st
from toy_training import toy_recipe, toy_step, written
from training_data import recipe_16k

from rocktop_ray.config.training import ValidationConfig
from rocktop_ray.errors import AudioError, TrainingError
from rocktop_ray.evaluate.spectra import log_mel_distance
from rocktop_ray.noise import SeededNoise
from rocktop_ray.voices.open import open_voice
from train_loops.dataset.build import build_dataset
from train_loops.dataset.reader import Dataset
from train_loops.dataset.runners import LocalRunner
from train_loops.rvc.batches import collate
from train_loops.rvc.examples import Preparation, from_slice
from train_loops.rvc.export import trained_voice
from train_loops.rvc.held_out import choose
from train_loops.rvc.recipe import Recipe
from train_loops.rvc.step import PARTS, AdversarialStep
from train_loops.rvc.validation import Validator, validator_for

SMALL = ValidationConfig(slices=2, samples=1, metrics=False)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory) -> Dataset:
    folder = tmp_path_factory.mktemp("validated")
    for number in range(3):
        write(folder / "in" / "anna" / f"{number} é!.wav", song(5 + number, number))
    for number in range(2):
        write(folder / "in" / "berta" / f"{number}.wav", song(7, 10 + number))
    build_dataset(job(folder / "in", folder / "set"), LocalRunner())
    return Dataset.open(folder / "set", held_out=0.05)


def place(dataset: Dataset) -> str:
    return dataset._storage.url


def validator(recipe: Recipe, dataset: Dataset, config: ValidationConfig = SMALL) -> Validator:
    return Validator(recipe, dataset.held_out, config, content_name="level")


def train(step: AdversarialStep, dataset: Dataset, steps: int, first: int = 0, index: int = 0) -> None:
    prepared = Preparation(step.recipe).prepare(from_slice(dataset[index]))
    batch = collate([prepared], [0])
    for number in range(first, first + steps):
        step.run([batch], step=number, epoch=0)


def test_the_score_falls_while_the_voice_learns_a_slice_by_heart(dataset):
    recipe = recipe_16k()
    recipe = replace(recipe, optimizer=replace(recipe.optimizer, learning_rate=4e-3))
    step, judge = toy_step(recipe), validator(recipe, dataset)
    scores = [judge.run(step).score]
    for part in range(3):
        train(step, dataset.held_out, 10, 10 * part, judge.slices[0])
        scores.append(judge.run(step).score)
    assert scores[1] < 0.7 * scores[0]
    assert max(scores[2:]) < scores[1]


def test_what_is_measured_is_the_exported_voice(dataset, tmp_path):
    """The score by hand: the voice file, opened as users do, sings each slice."""
    recipe = recipe_16k()
    step, judge = toy_step(recipe), validator(recipe, dataset, replace(SMALL, slices=5))
    train(step, dataset, 3)
    result = judge.run(step)
    opened = open_voice(written(trained_voice(step, epochs=1, content_name="level"), tmp_path / "v.safetensors"))
    distances, frames = [], []
    for index in judge.slices:
        one = dataset.held_out[index]
        units, noise = np.repeat(one.units, 2, axis=0), SeededNoise(0)
        latent = opened.model.latent(units, one.f0, speaker=one.speaker, noise=noise)
        wave = opened.model.wave(latent, one.f0, speaker=one.speaker, noise=noise)
        distances.append(log_mel_distance(one.wave, wave, RATE))
        frames.append(one.frames)
    assert len(set(frames)) > 1
    assert result.score == pytest.approx(np.average(distances, weights=frames), rel=1e-5)
    sample, first = result.samples[0], dataset.held_out[judge.slices[0]]
    assert (sample.rate, sample.wave.shape, sample.target.shape) == (RATE, first.wave.shape, first.wave.shape)
    assert np.array_equal(sample.target, first.wave)
    assert np.array_equal(sample.f0, first.f0)


def test_losses_are_those_of_one_batch(dataset):
    recipe = recipe_16k(max_frames=150)
    step, judge = toy_step(recipe), validator(recipe, dataset, replace(SMALL, slices=3))
    prepared = [Preparation(recipe).prepare(from_slice(dataset.held_out[index])) for index in judge.slices]
    expected = step.measure([collate(prepared, range(3))], step=0)
    metrics = judge.run(step).metrics
    for name, value in expected.items():
        assert metrics[f"validation/{name}"] == pytest.approx(value, rel=1e-4), name


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_run_with_validations_is_the_run_without(dataset, precision):
    base = recipe_16k(precision=precision)
    recipe = replace(base, synthesizer=replace(base.synthesizer, p_dropout=0.1))  # draws from torch's generator
    ends, draws, scores = [], [], set()
    for judged in (False, True):
        torch.manual_seed(5)
        step, judge = toy_step(recipe), validator(recipe, dataset, replace(SMALL, metrics=True))
        for number in range(3):
            train(step, dataset, 1, number)
            if judged:
                gradients = [weight.grad.clone() for part in PARTS for weight in step.weights[part].values()]
                scores.add(judge.run(step).score)
                now = [weight.grad for part in PARTS for weight in step.weights[part].values()]
                assert all(torch.equal(one, other) for one, other in zip(gradients, now, strict=True))
        assert all(module.training for network in (step.generator, step.discriminator) for module in network.modules())
        assert all(weight.requires_grad for part in PARTS for weight in step.weights[part].values())
        moments = [each for part in PARTS for state in step.optimizers[part].state.values() for each in state.values()]
        ends.append([*(weight.detach() for part in PARTS for weight in step.weights[part].values()), *moments])
        draws.append(torch.rand(1))
    assert all(torch.equal(one, other) for one, other in zip(*ends, strict=True))
    assert draws[0] == draws[1]
    assert len(scores) == 3


def test_the_same_weights_have_the_same_score(dataset):
    base = recipe_16k()
    recipe = replace(base, synthesizer=replace(base.synthesizer, p_dropout=0.3))
    step = toy_step(recipe)
    first = validator(recipe, dataset).run(step)
    torch.manual_seed(99)
    again = validator(recipe, Dataset.open(place(dataset))).run(step)
    assert (first.score, first.metrics) == (again.score, again.metrics)
    assert all(np.array_equal(a.wave, b.wave) for a, b in zip(first.samples, again.samples, strict=True))


def test_samples_and_metrics(dataset):
    recipe = recipe_16k()
    judge = validator(recipe, dataset, ValidationConfig(slices=3, samples=2))
    result = judge.run(toy_step(recipe))
    names = [sample.name for sample in result.samples]
    assert [name[:8] for name in names] == ["01-anna-", "02-berta", "02-berta"]
    assert names[2] == names[1] + "-by-anna"
    assert all(re.fullmatch("[A-Za-z0-9_-]+", name) for name in names)
    assert np.array_equal(result.samples[1].target, result.samples[2].target)
    assert not np.array_equal(result.samples[1].wave, result.samples[2].wave)
    losses = ("discriminator", "adversarial", "feature", "mel", "kl", "generator")
    found = set(result.metrics)
    assert {f"validation/{name}" for name in ("score", *losses, "mcd_db", "mr_stft", "voicing_f1")} <= found
    assert all(math.isfinite(value) and type(value) is float for value in result.metrics.values())
    plain = validator(recipe, dataset, ValidationConfig(slices=3, samples=0)).run(toy_step(recipe))
    assert not plain.samples
    assert plain.score == result.score


def test_voices_without_f0(dataset):
    recipe = recipe_16k()
    recipe = replace(recipe, synthesizer=replace(recipe.synthesizer, uses_f0=False))
    result = validator(recipe, dataset).run(toy_step(recipe))
    assert math.isfinite(result.score)
    assert result.samples[0].f0 is None


class Slices:
    """What ``choose`` looks at. Rows: singer, take, frames."""

    def __init__(self, rows: list[tuple[int, int, int]]) -> None:
        self.speaker_numbers = np.array([row[0] for row in rows], np.int64)
        self.takes = [f"{row[0]}/{row[1]}" for row in rows]
        self.frames = np.array([row[2] for row in rows], np.int64)


@settings(max_examples=40)
@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 4), st.integers(1, 400)), max_size=40), st.integers(1, 30))
def test_slices_are_spread_over_singers_and_takes(rows, wanted):
    slices = Slices(rows)
    chosen = choose(slices, wanted, shortest=20)
    fit = [index for index, row in enumerate(rows) if row[2] >= 20]
    assert len(chosen) == len(set(chosen)) == min(wanted, len(fit))
    assert set(chosen) <= set(fit)
    assert choose(slices, wanted + 1, shortest=20)[:wanted] == chosen
    for length in (1, 2):  # no singer, and no take of a singer, gets two more than another that has more to give
        has = Counter(rows[index][:length] for index in fit)
        got = Counter(rows[index][:length] for index in chosen)
        rivals = [(one, other) for one in has for other in has if one[: length - 1] == other[: length - 1]]
        assert all(got[one] <= got[other] + 1 for one, other in rivals if got[other] < has[other])


def test_runs_that_cannot_be_validated_say_why(dataset, caplog):
    recipe, long = recipe_16k(), recipe_16k(segment_frames=890)
    caplog.set_level(logging.WARNING)
    assert isinstance(validator_for(recipe, dataset, SMALL, content_name="level"), Validator)
    assert not caplog.records
    for chosen, data, config, why in (
        (recipe, dataset, replace(SMALL, every_steps=0), "every_steps is 0"),
        (recipe, Dataset.open(place(dataset), held_out=0.0), replace(SMALL, share=0.0), "share is 0"),
        (recipe, dataset.training, SMALL, "no singer has two takes"),
        (long, dataset, SMALL, "no held-out slice has 890 frames"),
    ):
        caplog.clear()
        assert validator_for(chosen, data, config, content_name="level") is None
        assert why in caplog.text
    with pytest.raises(TrainingError, match="nothing to validate on"):
        validator(long, dataset)
    with pytest.raises(TrainingError, match="16000 Hz, the voice at 8000 Hz"):
        validator(toy_recipe(), dataset)


def test_weights_that_are_no_numbers_end_the_run(dataset):
    recipe = recipe_16k()
    step, judge = toy_step(recipe), validator(recipe, dataset)
    scale = step.weights["generator"]["enc_p.proj.bias"]
    for value, why in ((3e38, "sings values that are not finite"), (math.nan, "weights hold values that are not fin")):
        with torch.no_grad():
            scale.fill_(value)
        with pytest.raises(TrainingError, match=rf"{why}.*training diverged"):
            judge.run(step)
    assert step.generator.training
    step = toy_step(recipe)
    with torch.no_grad():
        next(iter(step.weights["discriminator"].values())).fill_(math.inf)
    result = judge.run(step)
    assert "validation/adversarial" not in result.metrics
    assert {"validation/score", "validation/mel"} <= set(result.metrics)


def test_the_distance_of_spectra():
    generator = np.random.default_rng(0)
    noise, hiss = (generator.standard_normal(RATE).astype(np.float32) * np.float32(scale) for scale in (0.1, 1e-7))
    assert log_mel_distance(noise, noise, RATE) == 0
    assert log_mel_distance(noise, noise / 2, RATE) == pytest.approx(20 * math.log10(2), rel=1e-3)
    rest = np.zeros(RATE, np.float32)
    half = np.concatenate([noise, rest])
    assert log_mel_distance(half, half + np.concatenate([hiss, hiss]), RATE) < 0.01  # not heard
    assert log_mel_distance(half, half + np.concatenate([rest, 1e5 * hiss]), RATE) > 5  # noise in a rest is
    with pytest.raises(AudioError, match="silent"):
        log_mel_distance(0 * noise, noise, RATE)
    with pytest.raises(AudioError, match="equally long"):
        log_mel_distance(noise, noise[1:], RATE)
