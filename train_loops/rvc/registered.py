"""Makes the voice of a finished run a registered model, so that others can import it by name."""

from __future__ import annotations

import hashlib
import logging
import tempfile
from pathlib import Path

from rocktop_ray.config.training import TrainingConfig
from rocktop_ray.errors import RocktopError, TrackingError, storage_errors
from rocktop_ray.store.storage import Storage
from rocktop_ray.tracking.place import tracking_place
from rocktop_ray.tracking.registry import RegisteredVoice, register_voice
from rocktop_ray.tracking.tracker import Status, Tracker
from rocktop_ray.voices.names import clean_name
from train_loops.rvc.account import RUN
from train_loops.rvc.finish import Finished
from train_loops.rvc.tracked import recorded

_log = logging.getLogger(__name__)


def register_finished(config: TrainingConfig, storage: Storage, finished: Finished) -> RegisteredVoice | None:
    """Add a version to the registered model of the voice's name; the same voice again is the version that it is.

    None if ``config.tracking`` wants no tracking or no registering, or if the store cannot be used: a warning says why,
    and the voice's files are there all the same. Raises SettingsError, StorageError.
    """
    tracker = _tracker(config) if config.tracking.register else None
    if tracker is None:
        return None
    try:
        run_id = _run_id(tracker, config.name, storage)
        with storage_errors("the temporary folder"), tempfile.TemporaryDirectory(prefix="rocktop-") as folder:
            keys = sorted((file.key for file in finished.files), key=lambda key: not key.endswith(".safetensors"))
            paths = [Path(folder) / key for key in (*keys, RUN)]
            for path in paths:
                storage.get_file(path.name, path)
            made = register_voice(tracker, clean_name(config.name), paths, run_id=run_id, facts=_facts(finished))
    except TrackingError as error:
        _log.warning("the voice is not registered: %s; the same training command tries again", error.message)
        return None
    _log.info("registered: rocktop voices import '%s'", made.reference)
    return made


def mark_ended(config: TrainingConfig, storage: Storage, status: Status) -> None:
    """Say how a run ended whose workers could not: they were killed. If it cannot be said, a warning tells."""
    try:
        tracker = _tracker(config)
        if tracker is not None and (run_id := recorded(storage)):
            run = tracker.find_run(run_id)
            if run is not None and run.status == "RUNNING":
                tracker.end_run(run_id, status, {})
    except RocktopError as error:
        _log.warning("the tracked run is not marked as %s: %s", status, error.message)


def _tracker(config: TrainingConfig) -> Tracker | None:
    place = tracking_place(config.tracking.uri)
    return None if place is None else Tracker(place, config.tracking.experiment)


def _run_id(tracker: Tracker, name: str, storage: Storage) -> str:
    """The run that trained the voice; a new one if that was not tracked, or in another store."""
    known = recorded(storage)
    if known and tracker.find_run(known) is not None:
        return known
    run = tracker.start_run(hashlib.sha256(storage.url.encode()).hexdigest(), name, {"voice": name})
    tracker.end_run(run.id, "FINISHED", {})
    return run.id


def _facts(finished: Finished) -> dict[str, object]:
    """Tags of the version: what tells voices apart in a list."""
    account = finished.account
    voice = account["voice"]
    return {
        "rate": voice["sample_rate"],
        "version": account["recipe"]["version"],
        "content": voice["content"],
        "fingerprint": account["dataset"]["fingerprint"],
        "step": finished.step,
        "score": finished.score,
        "licence": voice["licence"],
        "rocktop_version": account["version"]["version"],
    }
