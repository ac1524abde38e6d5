"""Checkpoints of a run in its store: written through Ray Train, which keeps the latest and forgets the others.

Ray Train writes down which checkpoints there are, but not atomically, and it cannot read what another version of Ray
wrote. So a new start compares the two (``mend``) and falls back on the files themselves, which are whole or absent.
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


def restore_latest(run: Storage, step: AdversarialStep, fallback: str = "") -> Progress | None:
    """Put the latest checkpoint, as Ray Train knows it or else ``fallback``, into ``step``; None if there is none.

    Raises TrainingError, VoiceFormatError or StorageError if it cannot be used.
    """
    found = ray.train.get_checkpoint()
    name = Path(found.path).name if found is not None else fallback
    if not name:
        return None
    with tempfile.TemporaryDirectory(prefix="rocktop-") as folder:
        run.get_file(f"{FOLDER}/{name}/{FILE}", Path(folder) / FILE)
        return restore(Path(folder) / FILE, step)


def mend(run: Storage) -> str:
    """Make the checkpoints fit Ray Train's list of them before it reads it; no run may be under way.

    Checkpoints that are not on the list go: they were written when the run was killed. Where there is no list that this
    Ray can read, it goes instead, and the name of the latest checkpoint is returned. Raises StorageError.
    """
    there: dict[str, list[str]] = {}
    for stat in run.list(f"{FOLDER}/"):
        match = _KEY.fullmatch(stat.key)
        if match:
            there.setdefault(match[1], []).append(stat.key)
    whole = sorted(name for name, keys in there.items() if f"{FOLDER}/{name}/{FILE}" in keys)
    known = _listed(run)
    fallback = ""
    if not known or not known <= set(whole):
        run.delete(SNAPSHOT)
        known = set(whole[-1:])
        fallback = whole[-1] if whole else ""
        if fallback:
            _log.warning("Ray Train's list of checkpoints cannot be used; going on from the latest file, %s", fallback)
    for name in there.keys() - known:
        for key in there[name]:
            run.delete(key)
    return fallback


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
