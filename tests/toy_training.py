"""A training run small enough for tests: an 8 kHz voice, four examples of a buzzing tone each."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from rocktop_ray.models.rvc.discriminator import DiscriminatorConfig
from rocktop_ray.voices.rvc_format import RvcFile, write_rvc
from train_loops.rvc.batches import Batch, collate
from train_loops.rvc.examples import Example, Preparation, Prepared
from train_loops.rvc.networks import fresh
from train_loops.rvc.recipe import Recipe, SpectrumConfig, tiny
from train_loops.rvc.step import AdversarialStep


def toy_recipe(*, f0: bool = True, version: str = "v1", **changes: Any) -> Recipe:
    base = tiny(f"{version}-40k", f0=f0)
    synthesizer = replace(
        base.synthesizer,
        spec_channels=129,
        upsample_rates=(10, 4, 2),
        upsample_kernel_sizes=(20, 8, 4),
        upsample_initial_channel=16,
        sample_rate=8000,
        n_layers=1,
    )
    discriminator = DiscriminatorConfig((2, 3), (4, 8, 8, 8, 8), (4, 8, 8, 8, 8, 8), (1, 2, 2, 2, 2, 1))
    values = {
        "synthesizer": synthesizer,
        "discriminator": discriminator,
        "spectrum": SpectrumConfig(n_fft=256, mel_bands=32),
        "segment_frames": 16,
    }
    return replace(base, **{**values, **changes})


def buzz(recipe: Recipe, frames: int, hz: float, speaker: int, seed: int = 0) -> Example:
    """A steady tone with overtones, and units that tell it from the others, and frame from frame."""
    config = recipe.synthesizer
    time = np.arange(frames * recipe.hop + 37) / config.sample_rate
    wave = sum(np.sin(2 * np.pi * hz * k * time) / k for k in range(1, 6)) * 0.15
    random = np.random.default_rng(seed)
    units = random.standard_normal(config.content_dim) + random.standard_normal((frames // 2 + 1, config.content_dim))
    f0 = np.full(frames + 2, hz, np.float32)
    f0[frames // 2 :][:3] = 0
    return Example(units.astype(np.float16), wave.astype(np.float32), f0, speaker, f"buzz {hz:g} Hz")


def toy_examples(recipe: Recipe, count: int = 4) -> list[Prepared]:
    preparation = Preparation(recipe)
    made = []
    for number in range(count):
        speaker = number % recipe.synthesizer.speakers
        made.append(preparation.prepare(buzz(recipe, 20 + 6 * number, 150 + 50 * number, speaker, number)))
    return made


def toy_batch(recipe: Recipe, count: int = 4) -> Batch:
    return collate(toy_examples(recipe, count), range(count))


def toy_step(recipe: Recipe | None = None) -> AdversarialStep:
    recipe = recipe or toy_recipe()
    return AdversarialStep(*fresh(recipe), recipe)


@cache
def trained_toy(steps: int = 4) -> tuple[AdversarialStep, Batch]:
    """A run after a few steps, for tests that only read it."""
    recipe = toy_recipe()
    step, batch = toy_step(recipe), toy_batch(recipe)
    for number in range(steps):
        step.run([batch], step=number, epoch=0)
    return step, batch


def written(voice: RvcFile, path: Path) -> Path:
    """A voice file."""
    write_rvc(voice, path)
    return path
