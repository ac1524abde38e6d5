"""A training step: it learns, parts and workers add up to one batch, and a run goes on exactly as it would have."""

from __future__ import annotations

import copy
import math
from dataclasses import asdict, replace

import pytest
import torch
from toy_training import buzz, toy_batch, toy_examples, toy_recipe, toy_step

from rocktop_ray.errors import TrainingError
from train_loops.rvc.batches import collate, parts, share
from train_loops.rvc.examples import Preparation
from train_loops.rvc.losses import Counts
from train_loops.rvc.networks import fresh
from train_loops.rvc.recipe import STOCK, Recipe, tiny
from train_loops.rvc.step import PARTS, AdversarialStep, total_counts


def weights_of(step: AdversarialStep) -> dict[str, torch.Tensor]:
    return {f"{part}.{name}": weight.detach().clone() for part in PARTS for name, weight in step.weights[part].items()}


def distance(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> float:
    return max(float((one[name] - other[name]).abs().max()) for name in one)


def slow(recipe: Recipe) -> Recipe:
    """At the learning rate of the stock configurations."""
    return replace(recipe, optimizer=replace(recipe.optimizer, learning_rate=1e-4))


def test_one_step_lowers_both_losses_on_its_own_batch_and_draws():
    recipe = replace(toy_recipe(), optimizer=replace(toy_recipe().optimizer, learning_rate=3e-4))
    step, batch = toy_step(recipe), toy_batch(recipe)
    before = step.measure([batch], step=0)
    step.gradients("discriminator", [batch], step=0, counts=batch.counts)
    step.apply("discriminator", epoch=0)
    between = step.measure([batch], step=0)
    step.gradients("generator", [batch], step=0, counts=batch.counts)
    step.apply("generator", epoch=0)
    after = step.measure([batch], step=0)
    assert between["discriminator"] < before["discriminator"]
    assert after["generator"] < between["generator"]


def test_a_toy_example_is_learnt_by_heart():
    recipe = replace(toy_recipe(), optimizer=replace(toy_recipe().optimizer, learning_rate=4e-3))
    step, batch = toy_step(recipe), toy_batch(recipe, 1)
    first = step.measure([batch], step=0)["mel"]
    reports = [step.run([batch], step=number, epoch=0) for number in range(60)]
    assert reports[-1].mel < 0.5 * first
    assert all(math.isfinite(value) for value in asdict(reports[-1]).values())


@pytest.mark.parametrize("f0", [True, False])
def test_parts_make_the_gradients_of_the_whole_batch(f0):
    recipe = slow(toy_recipe(f0=f0))
    examples = toy_examples(recipe)
    whole = collate(examples, range(4))
    pieces = [collate([examples[i] for i in slots], slots) for slots in parts(range(4), 3)]
    assert [len(piece.slots) for piece in pieces] == [2, 1, 1]
    one, many = toy_step(recipe), toy_step(recipe)
    for number in range(3):
        single = one.run([whole], step=number, epoch=0)
        accumulated = many.run(pieces, step=number, epoch=0)
        for name, value in asdict(single).items():
            assert asdict(accumulated)[name] == pytest.approx(value, rel=1e-4, abs=1e-6), name
    assert distance(weights_of(one), weights_of(many)) < 1e-6


def test_gradients_of_parts_add_up_but_for_rounding():
    recipe = toy_recipe()
    examples = toy_examples(recipe)
    whole = collate(examples, range(4))
    pieces = [collate([examples[i] for i in slots], slots) for slots in parts(range(4), 4)]
    found = []
    for given in ([whole], pieces):
        step = toy_step(recipe)
        gradients = {}
        for part in PARTS:
            step.gradients(part, given, step=5, counts=whole.counts)
            gradients |= {f"{part}.{name}": weight.grad for name, weight in step.weights[part].items()}
        found.append(gradients)
    for name, gradient in found[0].items():
        gap = torch.linalg.vector_norm(gradient - found[1][name])
        assert gap <= 5e-5 * torch.linalg.vector_norm(gradient) + 1e-7, name


@pytest.mark.parametrize("shares", [[1.0], [3.0, 1.0], [5.0, 2.0, 0.0, 1.0]])
def test_unequal_workers_are_one_worker(shares):
    """The sum over workers, taken between the phases, makes every worker the single one; one of them is idle."""
    recipe = slow(toy_recipe())
    examples = toy_examples(recipe)
    whole = collate(examples, range(4))
    single = toy_step(recipe)
    workers = [toy_step(recipe) for _ in shares]
    given = [[collate([examples[i] for i in slots], slots)] if slots else [] for slots in share(4, shares)]
    for number in range(2):
        report = single.run([whole], step=number, epoch=0)
        norms: dict = {}
        for part in PARTS:
            for worker, batches in zip(workers, given, strict=True):
                worker.gradients(part, batches, step=number, counts=whole.counts)
            lists = [worker.exchanged(part) for worker in workers]
            for copies in zip(*lists, strict=True):
                total = torch.stack([weight.grad for weight in copies]).sum(0)
                for weight in copies:
                    weight.grad.copy_(total)
            norms[part] = [worker.apply(part, epoch=0) for worker in workers]
        reports = [worker.finish({part: norms[part][0] for part in PARTS}, epoch=0) for worker in workers]
        for name in ("discriminator", "adversarial", "feature", "mel", "kl", "generator"):
            assert sum(getattr(each, name) for each in reports) == pytest.approx(getattr(report, name), rel=1e-4)
    states = [weights_of(worker) for worker in workers]
    assert all(distance(states[0], state) == 0 for state in states)
    assert distance(weights_of(single), states[0]) < 1e-6


def test_an_exchange_sees_every_gradient_of_both_networks_in_turn():
    recipe = toy_recipe()
    step, batch = toy_step(recipe), toy_batch(recipe)
    seen = []

    def exchange(part, weights):
        seen.append((part, len(weights), all(weight.grad is not None for weight in weights)))

    step.run([], step=0, epoch=0, counts=batch.counts, exchange=exchange)
    assert seen == [(part, len(step.weights[part]), True) for part in PARTS]


def test_draws_do_not_depend_on_what_was_drawn_before():
    recipe = toy_recipe()
    step, batch = toy_step(recipe), toy_batch(recipe)
    first = step.measure([batch], step=7)
    torch.manual_seed(1)
    step.measure([batch], step=8)
    assert step.measure([batch], step=7) == first
    assert step.measure([batch], step=8)["mel"] != first["mel"]


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_reduced_precision_stays_near_float32(precision):
    recipe = toy_recipe()
    exact = toy_step(recipe)
    reduced = toy_step(replace(recipe, precision=precision, initial_scale=64.0))
    batch = toy_batch(recipe, 2)
    for number in range(2):
        one = exact.run([batch], step=number, epoch=0)
        other = reduced.run([batch], step=number, epoch=0)
        assert other.mel == pytest.approx(one.mel, rel=0.05)
        assert other.discriminator == pytest.approx(one.discriminator, rel=0.05)
        assert all(weight.dtype == torch.float32 for weight in reduced.exchanged("generator"))
    assert other.scale == (64.0 if precision == "fp16" else 1.0)


def test_an_overflow_of_fp16_leaves_the_step_out_and_lowers_the_scale():
    recipe = replace(toy_recipe(), precision="fp16", initial_scale=2.0**40)
    step, batch = toy_step(recipe), toy_batch(recipe, 1)
    before = weights_of(step)
    report = step.run([batch], step=0, epoch=0)
    assert not math.isfinite(report.generator_norm)
    assert report.scale == 2.0**39
    changed = {name for name, weight in weights_of(step).items() if not torch.equal(weight, before[name])}
    assert not any(name.startswith("generator.") for name in changed)


def test_broken_gradients_are_an_error_not_a_broken_voice():
    recipe = toy_recipe()
    step, batch = toy_step(recipe), toy_batch(recipe, 1)
    broken = replace(batch, wave=batch.wave * math.nan)
    before = weights_of(step)
    with pytest.raises(TrainingError, match="discriminator's gradients are not finite"):
        step.run([broken], step=0, epoch=0)
    assert distance(before, weights_of(step)) == 0


def test_the_discriminator_learns_nothing_in_the_generators_phase():
    recipe = toy_recipe()
    step, batch = toy_step(recipe), toy_batch(recipe, 1)
    step.gradients("discriminator", [batch], step=0, counts=batch.counts)
    kept = [weight.grad.clone() for weight in step.exchanged("discriminator")]
    assert all(weight.grad is None for weight in step.exchanged("generator"))
    step.gradients("generator", [batch], step=0, counts=batch.counts)
    same = zip(kept, step.exchanged("discriminator"), strict=True)
    assert all(torch.equal(gradient, weight.grad) for gradient, weight in same)
    assert all(weight.requires_grad for weight in step.exchanged("discriminator"))
    still = [name for name, weight in step.weights["generator"].items() if not float(weight.grad.abs().max())]
    assert all(name.endswith("conv_k.bias") or ".flow." in f".{name}" for name in still)


def test_the_rate_falls_with_the_epochs():
    recipe = toy_recipe()
    step, batch = toy_step(recipe), toy_batch(recipe, 1)
    assert step.run([batch], step=0, epoch=100).learning_rate == pytest.approx(1e-3 * 0.999875**100)


def test_counts_add_up():
    recipe = toy_recipe()
    batch = toy_batch(recipe)
    assert batch.counts == Counts(4, 20 + 26 + 32 + 38) == total_counts([batch])
    assert total_counts([batch, toy_batch(recipe, 1)]) == Counts(5, 136)


@pytest.mark.parametrize("f0", [True, False])
@pytest.mark.parametrize("name", STOCK)
def test_every_stock_configuration_can_be_trained(name, f0):
    recipe = tiny(name, f0=f0)
    discriminator = replace(
        recipe.discriminator, period_channels=(2,) * 5, scale_channels=(2,) * 6, scale_groups=(1,) * 6
    )
    synthesizer = replace(recipe.synthesizer, upsample_initial_channel=32, n_layers=1, hidden_channels=8)
    recipe = replace(recipe, discriminator=discriminator, synthesizer=synthesizer)
    step = AdversarialStep(*fresh(recipe), recipe)
    batch = collate([Preparation(recipe).prepare(buzz(recipe, recipe.segment_frames + 1, 200, 0))], [0])
    report = step.run([batch], step=0, epoch=0)
    assert math.isfinite(report.generator)
    assert len(step.discriminator.discriminators) == (7 if name.startswith("v1") else 9)


def test_a_step_leaves_its_batch_as_it_was():
    recipe = toy_recipe()
    step, batch = toy_step(recipe), toy_batch(recipe, 2)
    before = copy.deepcopy(vars(batch))
    step.run([batch], step=0, epoch=0)
    assert all(
        torch.equal(value, vars(batch)[name]) for name, value in before.items() if isinstance(value, torch.Tensor)
    )
