"""Checkpoints: exact resume, the reference trainers' files, pretrained weights, and the exported voice."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path

import golden_data
import numpy as np
import pytest
import torch
from toy_training import toy_batch, toy_examples, toy_recipe, toy_step, trained_toy, written

from rocktop_ray.errors import TrainingError, UnsafeFileError, VoiceFormatError
from rocktop_ray.models.rvc.config import SynthesizerConfig
from rocktop_ray.models.rvc.synthesizer import build
from rocktop_ray.models.rvc.weight_norm import add_weight_norm, other_order, weights_by_file_name
from rocktop_ray.noise import SeededNoise
from rocktop_ray.voices.open import open_voice
from rocktop_ray.voices.rvc_format import read_rvc
from rocktop_ray.voices.safe_load import load_pickle_tensors
from train_loops.rvc import checkpoints
from train_loops.rvc.batches import BatchPlan, collate
from train_loops.rvc.checkpoints import Progress
from train_loops.rvc.export import trained_voice
from train_loops.rvc.reference_files import (
    resume_reference,
    start_from_pretrained,
    start_from_voice,
    write_reference,
)
from train_loops.rvc.step import PARTS


def same_weights(one, other) -> bool:
    return all(
        torch.equal(one.weights[part][name], other.weights[part][name]) for part in PARTS for name in one.weights[part]
    )


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_a_resumed_run_is_the_uninterrupted_run_bit_for_bit(tmp_path, precision):
    recipe = toy_recipe(batch_size=2, precision=precision, initial_scale=256.0)
    examples = toy_examples(recipe)
    plan = BatchPlan([example.frames for example in examples], recipe.batch_size, seed=recipe.seed)

    def go(step, first, last):
        reports = []
        for planned in plan.walk(first):
            if planned.step == last:
                return reports
            batch = collate([examples[member] for member in planned.members], range(len(planned.members)))
            reports.append(step.run([batch], step=planned.step, epoch=planned.epoch))

    straight = toy_step(recipe)
    end = 5 if precision == "fp32" else 4  # float16 is slow on a CPU
    expected = go(straight, 0, end)
    first = toy_step(recipe)
    go(first, 0, 3)
    path = tmp_path / "run" / "step3.safetensors"
    checkpoints.save(path, first, Progress(step=3, epoch=1, batch=1, plan=plan.fingerprint(), notes={"best": 0.5}))
    assert [entry.name for entry in path.parent.iterdir()] == ["step3.safetensors"]
    torch.manual_seed(99)
    resumed = toy_step(replace(checkpoints.read_recipe(path), seed=recipe.seed))
    progress = checkpoints.restore(path, resumed)
    assert progress == Progress(3, 1, 1, plan.fingerprint(), {"best": 0.5})
    assert [asdict(report) for report in go(resumed, progress.step, end)] == [asdict(report) for report in expected[3:]]
    assert same_weights(straight, resumed)


def test_a_checkpoint_before_the_first_step_and_of_other_sizes(tmp_path):
    step = toy_step()
    checkpoints.save(tmp_path / "a.safetensors", step, Progress())
    assert checkpoints.restore(tmp_path / "a.safetensors", toy_step()) == Progress()
    with pytest.raises(TrainingError, match="another synthesizer"):
        checkpoints.restore(tmp_path / "a.safetensors", toy_step(toy_recipe(f0=False)))
    (tmp_path / "b.safetensors").write_bytes((tmp_path / "a.safetensors").read_bytes()[:-100])
    with pytest.raises(VoiceFormatError, match=r"b\.safetensors"):
        checkpoints.restore(tmp_path / "b.safetensors", toy_step())
    with pytest.raises(VoiceFormatError, match="no training checkpoint"):
        checkpoints.read_recipe(written(trained_voice(step, epochs=1), tmp_path / "v.safetensors"))


def test_reference_checkpoints_go_there_and_back(tmp_path):
    step, _ = trained_toy()
    paths = {part: tmp_path / f"{part[0].upper()}_4.pth" for part in PARTS}
    for part, path in paths.items():
        write_reference(path, step, part, epochs=2)
    data = torch.load(paths["generator"], weights_only=True)
    assert list(data) == ["model", "iteration", "optimizer", "learning_rate"]
    assert data["iteration"] == 2
    assert data["optimizer"]["param_groups"][0]["initial_lr"] == 1e-3
    assert data["learning_rate"] == data["optimizer"]["param_groups"][0]["lr"] == 1e-3 * 0.999875**2
    assert all(tensor.dtype == torch.float32 for tensor in data["model"].values())
    again = toy_step()
    assert resume_reference(again, paths["generator"], paths["discriminator"]) == 2
    assert same_weights(step, again)
    mine = {kind: value.clone() for kind, value in next(iter(step.optimizers["generator"].state.values())).items()}
    theirs = next(iter(again.optimizers["generator"].state.values()))
    assert all(torch.equal(mine[kind], theirs[kind]) for kind in mine)
    with pytest.raises(VoiceFormatError, match="missing"):
        resume_reference(toy_step(), paths["discriminator"], paths["generator"])


def test_optimizer_states_in_the_order_of_applio_are_understood(tmp_path):
    recipe = toy_recipe(version="v2")
    step, batch = toy_step(recipe), toy_batch(recipe, 1)
    step.run([batch], step=0, epoch=0)
    for part in PARTS:
        write_reference(tmp_path / f"{part}.pth", step, part, epochs=1)
    data = torch.load(tmp_path / "generator.pth", weights_only=True)
    ours, theirs = list(step.weights["generator"]), list(other_order(step.generator))
    assert ours != theirs
    data["optimizer"]["state"] = {
        index: data["optimizer"]["state"][ours.index(name)] for index, name in enumerate(theirs)
    }
    torch.save(data, tmp_path / "applio.pth")
    again = toy_step(recipe)
    resume_reference(again, tmp_path / "applio.pth", tmp_path / "discriminator.pth")
    for name, weight in step.weights["generator"].items():
        moment = again.optimizers["generator"].state[again.weights["generator"][name]]["exp_avg"]
        assert torch.equal(moment, step.optimizers["generator"].state[weight]["exp_avg"]), name


def test_pretrained_weights_load_strictly_with_a_report(tmp_path):
    step, _ = trained_toy()
    generator, discriminator = tmp_path / "f0G.pth", tmp_path / "f0D.pth"
    torch.save({"model": {n: w.detach().half() for n, w in step.weights["generator"].items()}}, generator)
    torch.save({"model": {n: w.detach() for n, w in step.weights["discriminator"].items()}}, discriminator)
    more = replace(toy_recipe(), synthesizer=replace(toy_recipe().synthesizer, speakers=5))
    begun = toy_step(more)
    assert start_from_pretrained(begun, generator, discriminator) == ["3 of 5 speakers are fresh"]
    trained = step.weights["generator"]["emb_g.weight"].detach().half().float()
    assert torch.equal(begun.weights["generator"]["emb_g.weight"][:2], trained)
    assert start_from_pretrained(toy_step(), generator) == ["the discriminator is fresh"]
    with pytest.raises(VoiceFormatError, match=r"f0G\.pth does not fit this network: 9 are not expected"):
        start_from_pretrained(toy_step(toy_recipe(f0=False)), generator)
    with pytest.raises(VoiceFormatError, match="weights are missing"):
        start_from_pretrained(toy_step(), discriminator)


def test_files_that_ask_for_code_are_not_started_from(tmp_path):
    class Bomb:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "went off",))

    torch.save({"model": {"enc_p.proj.weight": Bomb()}}, tmp_path / "G.pth")
    with pytest.raises((UnsafeFileError, VoiceFormatError)):
        start_from_pretrained(toy_step(), tmp_path / "G.pth")
    assert not (tmp_path / "went off").exists()


def test_the_exported_voice_converts_and_can_be_trained_on(tmp_path):
    step, _ = trained_toy()
    voice = trained_voice(step, epochs=7, licence="CC-BY-4.0", training_data="abc123", extra={"author": "a singer"})
    pth, ours = written(voice, tmp_path / "toy.pth"), written(voice, tmp_path / "toy.safetensors")
    waves = []
    for path in (pth, ours):
        opened = open_voice(path)
        assert (opened.info.info, opened.info.licence, opened.info.training_data) == ("7epoch", "CC-BY-4.0", "abc123")
        frames = 30
        units = np.random.default_rng(0).standard_normal((frames, 256)).astype(np.float32)
        f0 = np.full(frames, 200, np.float32)
        latent = opened.model.latent(units, f0, noise=SeededNoise(1))
        waves.append(opened.model.wave(latent, f0, noise=SeededNoise(1)))
        assert waves[-1].shape == (frames * 80,)
        assert np.isfinite(waves[-1]).all()
        assert np.abs(waves[-1]).max() > 1e-4
    assert np.abs(waves[0] - waves[1]).max() < 0.02  # float16 weights
    small = load_pickle_tensors(pth)
    assert list(small) == ["weight", "config", "info", "sr", "f0", "version", "author", "licence", "training_data"]
    assert (small["sr"], small["f0"], small["version"], small["config"][1]) == ("8k", 1, "v1", 32)
    assert all(tensor.dtype == torch.float16 for tensor in small["weight"].values())
    assert not any("enc_q" in name for name in small["weight"])
    begun = toy_step(replace(toy_recipe(), seed=5))
    notes = start_from_voice(begun, read_rvc(ours))
    assert notes == [f"{16 * 6 + 3 + 4} weights of the posterior encoder are fresh", "the discriminator is fresh"]
    assert torch.equal(begun.weights["generator"]["emb_g.weight"], step.weights["generator"]["emb_g.weight"])


@pytest.mark.parametrize("name", ["v2_48k_f0", "v2_48k_nof0"])
def test_names_order_and_shapes_of_a_generator_are_those_of_rvcs_files(name):
    layout = golden_data.layouts()[name]
    config = SynthesizerConfig.from_list(layout["config"], version="v2", f0=bool(layout["f0"]))
    generator = build(config, training=True)
    add_weight_norm(generator)
    weights = weights_by_file_name(generator)
    assert len(weights) == (560 if config.uses_f0 else 549)
    small = {key: list(weight.shape) for key, weight in weights.items() if "enc_q" not in key}
    assert list(small) == list(layout["weight"])
    assert json.dumps(small) == json.dumps({key: list(shape) for key, shape in layout["weight"].items()})
