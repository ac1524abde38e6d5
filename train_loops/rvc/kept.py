"""Checkpoints of a run in its store: written through Ray Train, which keeps the latest and forgets the others.

Ray Train writes down which checkpoints there are, but later than their files, not atomically, and it cannot read what
another version of Ray wrote. So a run goes on from the files themselves, which are whole or absent; before a new start
the list is made to fit them (``mend``).
"""

from __future__ import annotations

import json
import logging
import re
import secrets
import tempfile
from pathlib import Path

import ray
from ray.train import Checkpoint

from rocktop_ray.errors import ObjectMissingError
from rocktop_ray.store.storage import Storage
from train_loops.rvc.checkpoints import Progress, restore, save
from train_loops.rvc.record import check_latest
from train_loops.rvc.step import AdversarialStep

FOLDER = "checkpoints"
"""Of Ray Train, in the run's store."""
FILE = "checkpoint.safetensors"
"""In the folder of each checkpoint."""
SNAPSHOT = f"{FOLDER}/checkpoint_manager_snapshot.json"
"""Ray Train's list of checkpoints."""
_KEY = re.compile(rf"{FOLDER}/(step-\d{{10}}-[0-9a-f]{{8}})/.+")
_MOST = 64 << 20

_log = logging.getLogger(__name__)


class RayKeeper:
    """Hands checkpoints to Ray Train; see ``loop.Keeper``."""

    def __init__(self, run: Storage, rank: int, attempt: str) -> None:
        self._run, self._rank, self._attempt = run, rank, attempt

    def save(self, step: AdversarialStep, progress: Progress, metrics: dict[str, float]) -> None:
        """All workers meet in it, while the first one writes. Raises TrainingError if it was replaced, StorageError."""
        if self._rank:
            ray.train.report({})
            return
        check_latest(self._run, self._attempt)
        name = f"step-{progress.step:010}-{secrets.token_hex(4)}"  # a step may be saved again by another attempt
        with tempfile.TemporaryDirectory(prefix="rocktop-") as folder:
            save(Path(folder) / FILE, step, progress)
            ray.train.report(
                {**metrics, "step": progress.step},
                Checkpoint.from_directory(folder),
                checkpoint_dir_name=name,
                checkpoint_upload_fn=self._upload,
            )

    def _upload(self, made: Checkpoint, name: str) -> Checkpoint:
        """Whole or not at all, and with errors that say what to do, which Ray's own way of copying does not offer."""
        self._run.put_file(f"{FOLDER}/{name}/{FILE}", Path(made.path) / FILE)
        return Checkpoint(f"{FOLDER}/{name}", self._run.arrow())


def restore_latest(run: Storage, step: AdversarialStep) -> Progress | None:
    """Put the latest checkpoint into ``step``; None if there is none.

    The files decide, not Ray Train's list: it knows a checkpoint only some time after its file is whole, and in that
    time a worker may be lost. Raises TrainingError, VoiceFormatError or StorageError if it cannot be used.
    """
    whole = _whole(_files(run))
    if not whole:
        return None
    with tempfile.TemporaryDirectory(prefix="rocktop-") as folder:
        run.get_file(f"{FOLDER}/{whole[-1]}/{FILE}", Path(folder) / FILE)
        return restore(Path(folder) / FILE, step)


def mend(run: Storage) -> None:
    """Make Ray Train's list of checkpoints fit the files before it reads it; no run may be under way.

    Files that are neither on the list nor the latest go: nobody would ever delete them. A list that this Ray cannot
    read, or with checkpoints that are not there, goes itself. Raises StorageError.
    """
    there = _files(run)
    whole = _whole(there)
    known = _listed(run)
    if not known or not known <= set(whole):
        run.delete(SNAPSHOT)
        known = set()
        if whole:
            _log.warning("Ray Train's list of checkpoints cannot be used; going on from the latest file, %s", whole[-1])
    for name in there.keys() - known - set(whole[-1:]):
        for key in there[name]:
            run.delete(key)


def _files(run: Storage) -> dict[str, list[str]]:
    """Keys by name of checkpoint."""
    there: dict[str, list[str]] = {}
    for stat in run.list(f"{FOLDER}/"):
        match = _KEY.fullmatch(stat.key)
        if match:
            there.setdefault(match[1], []).append(stat.key)
    return there


def _whole(there: dict[str, list[str]]) -> list[str]:
    """Names of checkpoints that were written to their end, the latest last."""
    return sorted(name for name, keys in there.items() if f"{FOLDER}/{name}/{FILE}" in keys)


def _listed(run: Storage) -> set[str]:
    """Names of checkpoints on Ray Train's list; none if it cannot be read."""
    try:
        state = json.loads(run.read(SNAPSHOT, limit=_MOST))
        if state["ray_version"] != ray.__version__:
            return set()
        return {result["checkpoint_dir_name"] for result in state["checkpoint_results"]}
    except ObjectMissingError:
        return set()
    except (ValueError, KeyError, TypeError):
        return set()
