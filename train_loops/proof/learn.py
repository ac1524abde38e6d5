"""Trains a voice and keeps it as it is after some minutes: ``python -m train_loops.proof.learn SET FOLDER``.

The loop, validation and first weights are those of ``python -m train_loops.rvc``, on one worker without Ray. Gives
``FOLDER/minute-<m>.safetensors``, ``history.jsonl`` (a line for each log line and validation, with the seconds of
training and of the processor) and ``last.safetensors``, a checkpoint; runs again from there.
"""

from __future__ import annotations

import argparse
import json
import logging
import tempfile
import time
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from rocktop_ray.config.training import TrainingConfig
from rocktop_ray.voices.rvc_format import write_rvc
from train_loops.dataset.reader import Dataset
from train_loops.exchange.groups import join
from train_loops.rvc.callbacks import Standing, ValidationResult
from train_loops.rvc.checkpoints import Progress, restore, save
from train_loops.rvc.export import trained_voice
from train_loops.rvc.loop import TrainLoop
from train_loops.rvc.networks import fresh
from train_loops.rvc.resolve import recipe_for
from train_loops.rvc.starting import begin
from train_loops.rvc.step import AdversarialStep
from train_loops.rvc.validation import validator_for

log = logging.getLogger("learn")
HELD_OUT = 0.1
"""Share of the takes."""
_EVERY = 120.0
"""Seconds between checkpoints."""


class Snapshots:
    """A keeper of checkpoints that also writes the voice when a mark has been passed, and a history."""

    def __init__(self, folder: Path, minutes: list[float], content_name: str) -> None:
        self.folder, self.content_name, self._saved = folder, content_name, 0.0
        self._minutes = [m for m in sorted(minutes) if not self._voice(m).exists()]

    def save(self, step: AdversarialStep, progress: Progress, metrics: dict[str, float]) -> None:
        """``train_loops.rvc.loop.Keeper``; asked often, writes seldom."""
        seconds = float(progress.notes.get("seconds", 0.0))
        due = self._minutes and seconds >= 60 * self._minutes[0]
        if due or seconds - self._saved >= _EVERY:
            save(self.folder / "last.safetensors", step, progress)
            self._saved = seconds
        while self._minutes and seconds >= 60 * self._minutes[0]:
            mark = self._minutes.pop(0)
            write_rvc(trained_voice(step, epochs=progress.epoch, content_name=self.content_name), self._voice(mark))
            self._write({"mark": mark, "step": progress.step, "seconds": seconds})

    def tell(self, hook: str, at: Standing, *values: Any, **_: Any) -> None:
        """Listens as ``train_loops.rvc.callbacks.Callback`` does."""
        if hook == "on_log":
            self._write({"step": at.step, "seconds": at.seconds, **values[0]})
        elif hook == "on_validation_end":
            result: ValidationResult = values[0]
            self._write({"step": at.step, "seconds": at.seconds, **result.metrics})

    def _voice(self, minute: float) -> Path:
        return self.folder / f"minute-{minute:g}.safetensors"

    def _write(self, line: Mapping[str, Any]) -> None:
        kept = {name: round(value, 5) if isinstance(value, float) else value for name, value in line.items()}
        with (self.folder / "history.jsonl").open("a") as file:
            file.write(json.dumps({**kept, "processor": round(time.process_time(), 1)}) + "\n")
        log.info("%s", json.dumps(kept))


def learn(config: TrainingConfig, folder: Path, minutes: list[float]) -> None:
    """Train as ``config`` says until its bound, from ``folder/last.safetensors`` if that is there."""
    data = Dataset.open(config.dataset, held_out=config.validation.share)
    recipe, content_name = recipe_for(config, data.manifest), data.manifest.networks.encoder
    step = AdversarialStep(*fresh(recipe), recipe)
    keeper, progress = Snapshots(folder, minutes, content_name), Progress()
    if (folder / "last.safetensors").exists():
        progress = restore(folder / "last.safetensors", step)
    else:
        for line in begin(step, config.start, content_name=content_name):
            log.info("%s", line)
        keeper.save(step, progress, {})
    judge = validator_for(recipe, data, config.validation, content_name=content_name)
    if judge is not None and progress.step == 0:
        keeper.tell("on_validation_end", Standing(0, 0, 1, 0.0), judge.run(step))
    with tempfile.TemporaryDirectory() as meeting:
        dist.init_process_group(
            "gloo", init_method=f"file://{meeting}/file", rank=0, world_size=1, timeout=timedelta(minutes=5)
        )
        groups = join()
        try:
            loop = TrainLoop(config, step, data.training, groups, keeper=keeper, judge=judge, tell=keeper.tell)
            log.info("%s", loop.run(progress))
        finally:
            groups.close()
            dist.destroy_process_group()


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--minutes", type=float, nargs="+", default=[0, 1, 2, 5, 10, 15, 20], help="last one: the end")
    parser.add_argument("--start", default="fresh", choices=("fresh", "bundle", "pretrained"))
    parser.add_argument("--pair", default="", help="with pretrained: a file of both networks")
    parser.add_argument("--rate", type=float, default=1e-3, help="learning rate; may change when a run goes on")
    parser.add_argument("--validate", type=int, default=200, help="steps between validations")
    given = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    torch.set_num_threads(1)
    given.folder.mkdir(parents=True, exist_ok=True)
    values = {
        "name": given.folder.name,
        "dataset": given.dataset,
        "recipe": {"stock": "small", "optimizer": {"learning_rate": given.rate}},
        "start": {"kind": given.start, "generator": given.pair},
        "stop": {"minutes": max(given.minutes), "patience": 0},
        "validation": {"every_steps": given.validate, "share": HELD_OUT, "slices": 12, "samples": 6},
        "checkpoints": {"every_steps": 10, "every_minutes": 0},
        "log_every_steps": 10,
    }
    learn(TrainingConfig.from_mapping(values), given.folder, given.minutes)


if __name__ == "__main__":
    main()
