"""A whole run: what is to be done, the training if there is any left, the voice at its end."""

from __future__ import annotations

import logging
import os
from dataclasses import asdict, replace
from urllib.parse import quote

from rocktop_ray.config.training import TrainingConfig
from rocktop_ray.errors import CancelledError, RocktopError, SettingsError
from rocktop_ray.store.settings import StorageSettings
from rocktop_ray.store.storage import Storage, open_storage
from train_loops.cluster import check_lasting, joined_ray
from train_loops.dataset.reader import Dataset
from train_loops.rvc.asked import Asked, ended_by_signal
from train_loops.rvc.callbacks import Outcome
from train_loops.rvc.finish import Finished, finish
from train_loops.rvc.record import Record
from train_loops.rvc.registered import mark_ended, register_finished
from train_loops.rvc.resolve import recipe_for

_log = logging.getLogger(__name__)


def launch(config: TrainingConfig) -> Finished:
    """Train what ``config`` says, or go on with it, and write the voice; what is done already is not done again.

    Raises SettingsError if it cannot be done or another run is kept there; TrainingError, WorkerLostError (the same
    call goes on from the last checkpoint), CancelledError if it was asked to end, StorageError.
    """
    check_lasting(config.out)
    reach = StorageSettings.from_environment()
    run = run_storage(config, reach)
    dataset = Dataset.open(config.dataset, reach, held_out=config.validation.share)
    recipe = recipe_for(config, dataset.manifest)
    config = replace(config, dataset=open_storage(config.dataset, reach).url)  # workers may stand in other folders
    record, earlier = Record.of(config, recipe, dataset.manifest.fingerprint), Record.read(run)
    if earlier is not None:
        record.check_continues(earlier, run.url)
    if earlier is not None and earlier.is_over(config):
        outcome = earlier.ended()
        _log.info("%s was trained before, %d steps: only the voice is written", config.name, outcome.at.step)
    else:
        record.write(run)
        try:
            outcome = _train(config, run, reach, record.attempt)
        except RocktopError:
            mark_ended(config, run, "FAILED")  # workers that were killed could not
            raise
    replace(record, outcome=asdict(outcome)).write(run)
    if outcome.reason == "asked":
        raise CancelledError(
            f"ended as asked after {outcome.at.step} steps; the same command goes on", stage="training"
        )
    finished = finish(config, run, dataset, outcome)
    register_finished(config, run, finished)
    return finished


def run_storage(config: TrainingConfig, reach: StorageSettings) -> Storage:
    """Where the run is kept, ``out/name``. Raises SettingsError."""
    out = config.out.rstrip("/") if config.out.startswith("s3:") else open_storage(config.out, reach).url
    name = config.name if out.startswith("s3:") else quote(config.name)
    return open_storage(f"{out}/{name}", reach)


def _train(config: TrainingConfig, run: Storage, reach: StorageSettings, attempt: str) -> Outcome:
    workers = config.workers
    os.environ.setdefault("RAY_CHDIR_TO_TRIAL_DIR", "0")  # paths in the settings are those of this folder
    with joined_ray(workers.count * workers.threads) as joined:
        from train_loops.rvc.kept import mend  # they import Ray, which reads its environment then
        from train_loops.rvc.ray_train import fit, shortage
        from train_loops.rvc.worker import Work

        lacking = shortage(workers)
        if lacking and joined.own:
            raise SettingsError(f"on this machine {lacking}; RAY_ADDRESS names a cluster", stage="training")
        if lacking:
            _log.warning("in the cluster %s: waiting until that is there", lacking)
        if joined.own:
            os.environ.setdefault("RAY_TRAIN_ENABLE_PREEMPTION_WATCHER", "0")  # nobody takes this machine away
        asked = Asked(run)
        asked.forget()
        with ended_by_signal(asked):  # in here, since Ray has set its own when it was joined
            mend(run)
            return fit(Work(config, run, reach, attempt), own=joined.own)
