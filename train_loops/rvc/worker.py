"""What each worker of a run does, under Ray Train."""

from __future__ import annotations

import logging
from contextlib import ExitStack, closing
from dataclasses import asdict, dataclass
from typing import Any

import ray
import torch
from lightning_fabric import Fabric
from ray.train.torch import get_device

from actors.threads import use_threads
from rocktop_ray.config.training import TrainingConfig
from rocktop_ray.errors import RocktopError
from rocktop_ray.store.settings import StorageSettings
from rocktop_ray.store.storage import Storage
from train_loops.cluster import LOGGERS
from train_loops.dataset.reader import Dataset
from train_loops.exchange.groups import Groups, join
from train_loops.exchange.state import send_state
from train_loops.rvc.asked import Asked
from train_loops.rvc.callbacks import Callback, Facts, Outcome
from train_loops.rvc.checkpoints import Progress
from train_loops.rvc.finish import BestVoice
from train_loops.rvc.history import History
from train_loops.rvc.kept import RayKeeper, restore_latest
from train_loops.rvc.loop import TrainLoop, send_progress
from train_loops.rvc.networks import fresh
from train_loops.rvc.record import check_latest
from train_loops.rvc.resolve import recipe_for
from train_loops.rvc.starting import begin
from train_loops.rvc.step import PARTS, AdversarialStep
from train_loops.rvc.tracked import Tracked
from train_loops.rvc.validation import validator_for

VENDOR = "rocktop.io/vendor"
"""Label of nodes, by which workers are placed; it also parts CPU workers into groups, to try a mixed run out."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Work:
    """What all workers are given."""

    config: TrainingConfig
    """With a dataset that every node finds."""
    run: Storage
    """``out/name``."""
    reach: StorageSettings
    attempt: str
    """Of ``Record``."""


def train(work: Work) -> dict[str, Any]:
    """Train as one worker of many; returns the outcome as plain data. Raises RocktopError."""
    config = work.config
    use_threads(config.workers.threads)
    _tidy_log()
    check_latest(work.run, work.attempt)
    device = get_device()
    try:
        with ExitStack() as stack:
            groups = stack.enter_context(closing(join(device, vendor=_vendor(device), timeout=config.workers.timeout)))
            return asdict(_train(work, device, groups, stack))
    except RocktopError:
        raise
    except Exception:
        _log.exception("worker %d failed", ray.train.get_context().get_world_rank())
        raise


def _train(work: Work, device: torch.device, groups: Groups, stack: ExitStack) -> Outcome:
    config = work.config
    dataset = Dataset.open(config.dataset, work.reach, held_out=config.validation.share)
    manifest = dataset.manifest
    recipe = recipe_for(config, manifest)
    step = AdversarialStep(*fresh(recipe), recipe, device=device)
    units = manifest.networks.encoder
    first = groups.rank == 0
    progress = _first_weights(work, step, units) if first else Progress()
    send_state(groups, {part: getattr(step, part) for part in PARTS}, step.optimizers, step.scaler)
    progress = send_progress(groups, progress)
    about = {"fingerprint": manifest.fingerprint, "counts": manifest.counts(), "networks": asdict(manifest.networks)}
    facts = Facts(config.name, recipe, config.as_mapping(), about, {}, progress.step)
    fabric = _fabric(device, _listeners(work, stack) if first else [])
    loop = TrainLoop(
        config,
        step,
        dataset.training,
        groups,
        keeper=RayKeeper(work.run, groups.rank, work.attempt),
        judge=validator_for(recipe, dataset, config.validation, content_name=units) if first else None,
        tell=fabric.call,
        facts=facts,
        asked=Asked(work.run),
    )
    if first:
        _log.info("%s: step %d, %s", config.name, progress.step, ", ".join(map(str, groups.layout.workers)))
    return loop.run(progress)


def _first_weights(work: Work, step: AdversarialStep, units: str) -> Progress:
    """Those of the latest checkpoint, else those that the settings name."""
    progress = restore_latest(work.run, step)
    if progress is not None:
        return progress
    for line in begin(step, work.config.start, content_name=units):
        _log.info("%s", line)
    return Progress()


def _fabric(device: torch.device, listeners: list[Callback]) -> Fabric:
    """Fabric for one worker's device, which Ray chose, and for its calls of listeners; the exchange is not its."""
    devices: Any = [device.index or 0] if device.type == "cuda" else 1
    return Fabric(accelerator=device.type, devices=devices, callbacks=listeners)


def _listeners(work: Work, stack: ExitStack) -> list[Callback]:
    """In the order in which they are told."""
    config, run = work.config, work.run
    tracked = Tracked.open(config.tracking, run)
    return [
        BestVoice(run, config.export),
        History(run, config.stop),
        *([] if tracked is None else [stack.enter_context(tracked)]),
    ]


def _vendor(device: torch.device) -> str | None:
    """The label of this node, for a worker without a GPU."""
    label = ray.get_runtime_context().get_node_labels().get(VENDOR) if device.type == "cpu" else None
    return label[0] if isinstance(label, list) else label


def _tidy_log() -> None:
    """Lines with the time, and none of other libraries' but warnings."""
    console = logging.StreamHandler()
    console.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
    console.addFilter(lambda record: record.levelno >= logging.WARNING or record.name.split(".")[0] in LOGGERS)
    root = logging.getLogger()
    root.handlers = [each for each in root.handlers if not isinstance(each, logging.StreamHandler)] + [console]
