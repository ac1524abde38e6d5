"""What a run leaves: the best weights while it goes on, and at its end the voice, its index and an account of it.

The files of a finished run in its ``Storage``: ``NAME.pth`` (float16, for RVC and Applio), ``NAME.safetensors`` (as
trained), ``NAME.index`` (as RVC builds it) and ``run.json``; if they are asked for also ``G_STEP.pth`` and
``D_STEP.pth``, with which RVC's trainer goes on. Nothing in them depends on the time of day, so finishing
again writes the same bytes.
"""

from __future__ import annotations

import hashlib
import logging
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from rocktop_ray.config.training import ExportConfig, TrainingConfig
from rocktop_ray.errors import ObjectMissingError, TrainingError, storage_errors
from rocktop_ray.store.storage import Storage
from rocktop_ray.voices.library import VoiceLibrary
from rocktop_ray.voices.names import clean_name
from rocktop_ray.voices.rvc_format import RvcFile, pth_bytes, read_rvc, safetensors_form
from train_loops.dataset.reader import Dataset
from train_loops.index import MAX_VECTORS, build_index
from train_loops.rvc.account import FinishedFile, account_of, read_account, write_account
from train_loops.rvc.callbacks import Callback, Facts, Outcome, Standing, ValidationResult
from train_loops.rvc.checkpoints import Progress, read_recipe, restore
from train_loops.rvc.export import plain_voice, run_voice, strange
from train_loops.rvc.networks import fresh
from train_loops.rvc.reference_files import write_reference
from train_loops.rvc.step import PARTS, AdversarialStep

BEST = "best.safetensors"
CHECKPOINTS = "checkpoints/"
_log = logging.getLogger(__name__)


class BestVoice(Callback):
    """Keeps the best weights so far as a voice file, ``best.safetensors``."""

    def __init__(self, storage: Storage, export: ExportConfig | None = None) -> None:
        """``storage``: of the run; ``export``: what the file says of licence, author and free text."""
        self._storage, self._export = storage, export or ExportConfig()
        self._facts: Facts | None = None

    def on_train_start(self, facts: Facts, at: Standing) -> None:
        """A new run begins without the best weights of an earlier one of its name."""
        self._facts = facts
        if not facts.resumed_from:
            self._storage.delete(BEST)

    def on_validation_end(
        self, at: Standing, result: ValidationResult, step: AdversarialStep, *, improved: bool
    ) -> None:
        """Writes the weights if they are the best. Raises StorageError."""
        if not improved or self._facts is None:
            return
        facts = self._facts
        voice = run_voice(
            step, at.step, at.epoch, name=facts.name, dataset=facts.dataset, export=self._export, judged=result
        )
        self._storage.write(BEST, safetensors_form(voice))


@dataclass(frozen=True)
class Finished:
    """A finished run."""

    place: str
    """URL of the run's store; holds no secret."""
    files: tuple[FinishedFile, ...]
    """The voice's files; not ``run.json``, nor those for trainers."""
    step: int
    """Of the weights."""
    score: float | None
    """Of the weights; None if nothing was validated."""
    installed: str | None
    """Name in the voice library."""
    account: dict[str, Any]
    """What ``run.json`` says."""

    def file(self, ending: str) -> FinishedFile | None:
        """The file of that ending: ``.pth``, ``.safetensors`` or ``.index``."""
        return next((file for file in self.files if file.key.endswith(ending)), None)


def finish(
    config: TrainingConfig,
    storage: Storage,
    dataset: Dataset,
    outcome: Outcome,
    *,
    checkpoint: Path | None = None,
    library: VoiceLibrary | None = None,
) -> Finished:
    """Write the voice of a run that is over, its index and ``run.json``; install it if ``config.export`` says so.

    The weights are the best ones (``best.safetensors``), or if nothing was validated those of the last checkpoint. The
    index holds the units of the takes that are not held out, of all speakers. An index that an earlier call made of
    the same units stays.

    Args:
        config: of the run.
        storage: of the run, ``out/name``.
        dataset: what was trained on.
        outcome: how the run ended.
        checkpoint: file, or folder with one; None looks below ``checkpoints/`` in ``storage``.
        library: where to install; None is the user's own.

    Raises TrainingError if there are no weights, VoiceFormatError, StorageError, SettingsError (a voice's name).
    """
    before = read_account(storage)
    voice = _voice(config, storage, dataset, outcome, checkpoint)
    files = [_put(storage, f"{config.name}.safetensors", safetensors_form(voice))]
    index: dict[str, Any] = {}
    if config.export.index:
        index = {**_index_facts(dataset)}
        files.append(_index(config, storage, dataset, before, index))
    files.append(_put(storage, f"{config.name}.pth", pth_bytes(plain_voice(voice))))
    alone = strange(voice)
    if alone:
        _log.warning("not all RVC programs can use this voice: %s", "; ".join(alone))
    account = account_of(config, storage, dataset, outcome, voice, files, index)
    account["voice"]["strange_to_others"] = alone
    if config.export.checkpoint:
        account["trainer_files"] = _trainer_files(storage, checkpoint)
    write_account(storage, account)
    installed = _install(config, storage, files, library) if config.export.install else None
    step, score = voice.extra["step"], voice.extra.get("score")
    _log.info("finished: %s/%s, weights of step %d", storage.url, config.name, step)
    return Finished(storage.url, tuple(files), step, score, installed, account)


# --- parts of it ------------------------------------------------------------------------------------------------------


def _voice(
    config: TrainingConfig, storage: Storage, dataset: Dataset, outcome: Outcome, checkpoint: Path | None
) -> RvcFile:
    if outcome.best_step and storage.exists(BEST):
        with _folder() as folder:
            storage.get_file(BEST, folder / BEST)
            voice = read_rvc(folder / BEST)
        if voice.extra.get("step") != outcome.best_step:
            _log.warning("%s is of step %s, not %d", BEST, voice.extra.get("step"), outcome.best_step)
        export = config.export
        author = {"author": export.author} if export.author else {}
        return replace(voice, info=export.info or voice.info, licence=export.licence, extra={**voice.extra, **author})
    if outcome.best_step:
        _log.warning("%s has no %s: taking the weights of the last checkpoint", storage.url, BEST)
    with _checkpoint(storage, checkpoint) as path:
        step, progress = _restored(path)
    manifest = dataset.manifest
    about = {"fingerprint": manifest.fingerprint, "networks": asdict(manifest.networks)}
    return run_voice(step, progress.step, progress.epoch, name=config.name, dataset=about, export=config.export)


def _restored(path: Path) -> tuple[AdversarialStep, Progress]:
    recipe = read_recipe(path)
    step = AdversarialStep(*fresh(recipe), recipe)
    return step, restore(path, step)


def _trainer_files(storage: Storage, checkpoint: Path | None) -> list[str]:
    """Write the last checkpoint as RVC's trainer does; the keys."""
    with _checkpoint(storage, checkpoint) as path, _folder() as folder:
        step, progress = _restored(path)
        keys = []
        for part in PARTS:
            keys.append(f"{part[0].upper()}_{progress.step}.pth")
            write_reference(folder / keys[-1], step, part, epochs=progress.epoch)
            storage.put_file(keys[-1], folder / keys[-1])
    return keys


@contextmanager
def _checkpoint(storage: Storage, given: Path | None) -> Iterator[Path]:
    """The file of the last checkpoint."""
    if given is not None:
        found = sorted(given.rglob("*.safetensors")) if given.is_dir() else [given]
        if len(found) != 1:
            raise TrainingError(f"{given} holds {len(found)} checkpoints, expected one")
        yield found[0]
        return
    kept = [stat for stat in storage.list(CHECKPOINTS) if stat.key.endswith(".safetensors")]
    if not kept:
        raise TrainingError(f"{storage.url} has no weights yet, neither validated ones nor a checkpoint: train first")
    with _folder() as folder:
        path = folder / "checkpoint.safetensors"
        storage.get_file(max(kept, key=lambda stat: (stat.modified, stat.key)).key, path)
        yield path


def _index_facts(dataset: Dataset) -> dict[str, Any]:
    """All that an index depends on."""
    part = dataset.training
    return {
        "dataset": dataset.manifest.fingerprint,
        "slices": len(part),
        "frames": int(part.frames.sum()),
        "max_vectors": MAX_VECTORS,
    }


def _index(
    config: TrainingConfig, storage: Storage, dataset: Dataset, before: Mapping[str, Any], facts: Mapping[str, Any]
) -> FinishedFile:
    key = f"{config.name}.index"
    known = before.get("files", {}).get(key)
    if known and before.get("index") == facts:
        try:
            if storage.stat(key).bytes == known["bytes"]:
                return FinishedFile(key, known["bytes"], known["sha256"])
        except ObjectMissingError:
            pass
    return _put(storage, key, build_index(dataset.training).to_bytes())


def _put(storage: Storage, key: str, data: bytes) -> FinishedFile:
    storage.write(key, data)
    return FinishedFile(key, len(data), hashlib.sha256(data).hexdigest())


def _install(config: TrainingConfig, storage: Storage, files: list[FinishedFile], library: VoiceLibrary | None) -> str:
    with _folder() as folder:
        paths = {Path(file.key).suffix: folder / f"voice{Path(file.key).suffix}" for file in files}
        for file in files:
            if not file.key.endswith(".pth"):
                storage.get_file(file.key, paths[Path(file.key).suffix])
        info = (library or VoiceLibrary()).import_(
            paths[".safetensors"],
            name=clean_name(config.name),
            index=paths.get(".index"),
            licence=config.export.licence,
            replace_existing=True,
        )
    _log.info("installed as voice %r", info.name)
    return info.name


@contextmanager
def _folder() -> Iterator[Path]:
    with storage_errors("the temporary folder"), tempfile.TemporaryDirectory(prefix="rocktop-") as folder:
        yield Path(folder)
