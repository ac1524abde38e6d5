"""Our training step in a process of its own: ``worker_ours.py JOB.json``; see ``step.py`` for the job.

The first of them to run also writes what both sides share: weights, examples and random draws, in the peer's layout.
"""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import scipy.io.wavfile
import torch

from benchmarks.train.exchange import answer, wait
from rocktop_ray.models.rvc.weight_norm import state_by_file_name
from train_loops.rvc import spectrogram
from train_loops.rvc.batches import Batch, collate
from train_loops.rvc.draws import draw
from train_loops.rvc.examples import Example, Preparation, Prepared
from train_loops.rvc.networks import fresh, harmonics
from train_loops.rvc.recipe import Recipe, stock
from train_loops.rvc.step import AdversarialStep, StepReport

FRAMES = 370
"""Of the longest example: a slice of RVC's preprocessing. The others are a little shorter, so that both sides put them
in one order."""


def main(job_file: str) -> None:
    """Set up, write the shared files if they are asked for, then one step per request."""
    job = json.loads(Path(job_file).read_text())
    recipe = replace(stock("v2-48k"), batch_size=job["batch"], precision=job["precision"])
    if job["peer_floors"]:  # the peer's spectrograms have lower floors than RVC's; losses are compared with the same
        spectrogram.POWER_FLOOR, spectrogram.MEL_FLOOR = 2e-7, 2e-6
    preparation = Preparation(recipe)
    examples = [preparation.prepare(_example(recipe, number)) for number in range(job["batch"])]
    batch = collate(examples, range(job["batch"]))
    step = AdversarialStep(*fresh(recipe), recipe, device=job["device"])
    if job["shared"]:
        _write_shared(Path(job["shared"]), step, examples, batch, job["steps"])
    batch = batch.to(job["device"])
    number = 0
    answer(None)
    while watch := wait():
        # The peer's epoch is one batch long here, so its rate falls with each step.
        report = step.run([batch], step=number, epoch=number)
        answer(watch, losses=_losses(report), resident=_peak_mib())
        number += 1


def _example(recipe: Recipe, number: int) -> Example:
    """A gliding tone with overtones and breath, random units."""
    frames = FRAMES - 2 * number
    random = np.random.default_rng(number)
    f0 = (180 + 40 * number) * 2 ** (0.3 * np.sin(np.arange(frames) / 40))
    f0[frames // 3 : frames // 3 + 20] = 0
    phase = 2 * np.pi * np.cumsum(np.repeat(f0, recipe.hop)) / recipe.synthesizer.sample_rate
    wave = sum(np.sin(overtone * phase) / overtone for overtone in range(1, 9)) * 0.1
    wave = wave + random.standard_normal(frames * recipe.hop) * 0.01
    units = random.standard_normal((frames // 2, recipe.synthesizer.content_dim))
    return Example(units.astype(np.float32), wave.astype(np.float32), f0.astype(np.float32), 0, f"tone {number}")


def _losses(report: StepReport) -> dict[str, float]:
    """What the peer reports too; its mel and divergence are clamped, so only what they add to the sum is compared."""
    return {
        "discriminator": report.discriminator,
        "adversarial": report.adversarial,
        "feature": 2 * report.feature,
        "mel and kl": 45 * report.mel + report.kl,
        "generator": report.generator,
    }


def _write_shared(folder: Path, step: AdversarialStep, examples: list[Prepared], batch: Batch, steps: int) -> None:
    """An experiment folder as the peer's preprocessing leaves it, base models, and the draws of all steps."""
    recipe = step.recipe
    for name, network in (("G", step.generator), ("D", step.discriminator)):
        torch.save({"model": state_by_file_name(network)}, folder / f"{name}.pth")
    for place in ("0_gt_wavs", "3_feature768", "2a_f0", "2b-f0nsf"):
        (folder / place).mkdir(exist_ok=True)
    for number, example in enumerate(examples):
        assert example.f0 is not None
        assert example.pitch is not None
        rate = recipe.synthesizer.sample_rate
        scipy.io.wavfile.write(folder / "0_gt_wavs" / f"{number}.wav", rate, example.wave.numpy())
        np.save(folder / "3_feature768" / f"{number}.npy", example.units[::2].numpy())
        np.save(folder / "2a_f0" / f"{number}.wav.npy", example.pitch.numpy())
        np.save(folder / "2b-f0nsf" / f"{number}.wav.npy", example.f0.numpy())
    draws = [draw(recipe, batch, number, harmonics=harmonics(step.generator)) for number in range(steps)]
    tables: dict[str, Any] = {f"posterior {n}": each.posterior.numpy() for n, each in enumerate(draws)}
    tables |= {f"source {n}": each.source.numpy() for n, each in enumerate(draws)}
    room = np.array(batch.lengths) - recipe.segment_frames + 1
    tables |= {f"start {n}": ((np.array(each.starts) + 0.5) / room).astype("f4") for n, each in enumerate(draws)}
    np.savez(folder / "draws.npz", **tables)


def _peak_mib() -> float:
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


if __name__ == "__main__":
    main(sys.argv[1])
