"""Writes a training run down in MLflow: settings, values by step, samples and their pictures, how it ended.

The run is found again by a key in the checkpoints' notes, so that a resumed training goes on in the same run. What was
written of steps that are now trained again stays, and their values are not written twice: every step has one value, the
one that came first.
"""

from __future__ import annotations

import json
import logging
import secrets
import tempfile
import time
from collections.abc import Mapping
from functools import partial
from pathlib import Path, PurePosixPath
from types import TracebackType
from typing import Any

from rocktop_ray.audio.encode import encode_bytes
from rocktop_ray.config.training import TrackingConfig
from rocktop_ray.errors import ObjectMissingError, RocktopError
from rocktop_ray.evaluate.picture import draw_conversion
from rocktop_ray.store.storage import Storage
from rocktop_ray.tracking.code_version import code_version
from rocktop_ray.tracking.outbox import Outbox, Parcel
from rocktop_ray.tracking.place import masked, tracking_place
from rocktop_ray.tracking.tracker import STEP_TAG, Run, Status, Tracker, plain_folder, plain_key
from train_loops.rvc.callbacks import Callback, Facts, Outcome, Sample, Standing, ValidationResult
from train_loops.rvc.step import AdversarialStep

RECORD = "tracking.json"
"""Beside the run's other files: which run of the tracking store it is."""

_NOTE = "tracking"
_REPORTS = ("history.jsonl", "curves.png", "report.html")
_SAMPLES = "samples/"
_MOST_REPORT = 32 << 20
_MOST_SECONDS = 30.0
"""Of a sample: longer ones are cut."""
_VALUE_BYTES = 300
_RESUMES = 50

_log = logging.getLogger(__name__)


class Tracked(Callback):
    """Listens to one run, as a context manager around the training: it also tells when that failed.

    Nothing waits for the store but the end of the block, nor does the store's being down end a run (see ``Outbox``).
    """

    def __init__(
        self, tracker: Tracker, *, files: Storage | None = None, patience: float = 60.0, outbox: Outbox | None = None
    ) -> None:
        """
        Args:
            tracker: of the store. Only this object uses it from now on.
            files: of the run, ``out/name``: reports in it are added at the end, and ``tracking.json`` is written there.
            patience: seconds that the end of the block waits for the store.
        """
        self._tracker, self._files, self._patience = tracker, files, patience
        self._outbox = Outbox(tracker.ask) if outbox is None else outbox
        self._run: Run | None = None
        self._notes: dict[str, Any] = {}
        self._sent: set[str] = set()
        self._ended = False

    @classmethod
    def open(cls, config: TrackingConfig, files: Storage | None = None) -> Tracked | None:
        """As ``config`` says; None if there is to be no tracking. Raises SettingsError, also without MLflow."""
        place = tracking_place(config.uri)
        return None if place is None else cls(Tracker(place, config.experiment), files=files)

    @property
    def run_id(self) -> str | None:
        """MLflow's id of the run, once the store has told it."""
        return None if self._run is None else self._run.id

    def __enter__(self) -> Tracked:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        """An attempt that failed is FAILED, one that was stopped KILLED; the next one makes the run RUNNING again."""
        if kind is not None and not self._ended:
            failed = issubclass(kind, Exception)
            said = masked(error.message if isinstance(error, RocktopError) else kind.__name__)
            self._end("FAILED" if failed else "KILLED", {"rocktop.error": said})
        self._outbox.close(self._patience)

    def on_train_start(self, facts: Facts, at: Standing) -> None:
        """Make the run, or go on with it."""
        self._ended = False
        self._notes = facts.notes.setdefault(_NOTE, {"key": secrets.token_hex(16), "validations": 0, "resumed": []})
        tags = _tags(facts)
        if facts.resumed_from:
            self._notes["resumed"] = [*self._notes["resumed"], facts.resumed_from][-_RESUMES:]
            tags["resumed_from"] = ", ".join(map(str, self._notes["resumed"]))
        self._put(partial(self._begin, facts, tags, self._notes["key"]), "its beginning", vital=True)
        self._put_start(facts)

    def on_log(self, at: Standing, values: Mapping[str, float]) -> None:
        """The values of a step, in one request."""
        self._put_values("train", at.step, {**values, "epoch": float(at.epoch)})

    def on_validation_end(
        self, at: Standing, result: ValidationResult, step: AdversarialStep, *, improved: bool
    ) -> None:
        """The metrics of every validation; the samples of some of them, evenly over the logarithm of their number."""
        values = {"validation/score": result.score, **result.metrics}
        if improved:
            values["best/score"] = result.score
        self._put_values("validation", at.step, values)
        self._notes["validations"] += 1
        if _kept(self._notes["validations"]):
            for sample in result.samples:
                self._put_sample(at.step, sample)

    def on_train_end(self, outcome: Outcome) -> None:
        """Add the reports, and say how it ended."""
        if (files := self._files) is not None:
            for key in _reports(files, self._sent):
                self._put(partial(self._send_report, files, key), "reports")
        tags = {"reason": outcome.reason, "best_step": str(outcome.best_step)}
        if outcome.best_score is not None:
            tags["best_score"] = f"{outcome.best_score:.6g}"
        self._end("KILLED" if outcome.reason == "asked" else "FINISHED", tags)

    def _end(self, status: Status, tags: dict[str, str]) -> None:
        self._ended = True
        self._put(lambda: self._tracker.end_run(self._id, status, tags), "its end")

    # --- in the outbox's thread, as all that talks to the store -------------------------------------------------------

    def _begin(self, facts: Facts, tags: dict[str, str], key: str) -> None:
        run = self._tracker.start_run(key, facts.name, tags)
        if self._files is not None:
            self._close_earlier(self._files, run.id)
            record = {"run_id": run.id, "experiment": self._tracker.experiment, "key": key}
            self._files.write(RECORD, json.dumps(record, indent=1).encode())
        self._run = run
        _log.info("tracked in %s, experiment %s, run %s", self._tracker.place.shown, self._tracker.experiment, run.id)

    def _close_earlier(self, files: Storage, run_id: str) -> None:
        """A run that was kept here before, was killed at once, and is begun anew runs no more."""
        earlier = recorded(files)
        if earlier and earlier != run_id:
            found = self._tracker.find_run(earlier)
            if found is not None and found.status == "RUNNING":
                self._tracker.end_run(earlier, "KILLED", {"rocktop.error": f"begun anew as {run_id}"})

    def _send_report(self, files: Storage, key: str) -> None:
        self._tracker.log_file(self._id, key, files.read(key, limit=_MOST_REPORT))

    def _describe(self, facts: Facts) -> None:
        """Settings, once: what a run began with stays (MLflow refuses other values), changes become a tag."""
        assert self._run is not None
        values = flat({**facts.settings, "recipe": facts.recipe.as_mapping()})
        params = {plain_key(name): masked(str(value)) for name, value in values.items()}
        known = self._run.params
        self._tracker.log_params(self._id, {name: value for name, value in params.items() if name not in known})
        changed = {name: value for name, value in params.items() if known.get(name, value) != value}
        if changed:
            told = json.dumps(changed, ensure_ascii=False, sort_keys=True)
            self._tracker.log_values(self._id, {}, 0, 0, {f"changed_at_{facts.resumed_from}": told})

    def _describe_data(self, facts: Facts) -> None:
        place = masked(str(facts.settings.get("dataset", "")))
        profile = json.dumps({key: value for key, value in facts.dataset.items() if key != "fingerprint"}, default=str)
        digest = str(facts.dataset.get("fingerprint", "")) or "unknown"
        name = PurePosixPath(place.partition("?")[0]).name or facts.name
        self._tracker.log_dataset(self._id, name, digest, json.dumps({"uri": place}), profile)

    # --- what is put into it ------------------------------------------------------------------------------------------

    def _put_start(self, facts: Facts) -> None:
        self._put(partial(self._describe, facts), "settings")
        if not facts.resumed_from:
            self._put(partial(self._describe_data, facts), "facts about the dataset")
            for name, value in (("settings.json", facts.settings), ("recipe.json", facts.recipe.as_mapping())):
                text = masked(json.dumps(value, indent=1, default=str, ensure_ascii=False))
                self._put_file(name, text.encode(), "settings")

    def _put_values(self, kind: str, step: int, values: Mapping[str, float]) -> None:
        now, given, tag = int(time.time() * 1000), dict(values), f"{STEP_TAG}.{kind}"

        def send() -> None:
            assert self._run is not None
            if step > _number(self._run.tags.get(tag)):
                self._tracker.log_values(self._run.id, given, step, now, {tag: str(step)})

        self._put(send, "values", len(given) * _VALUE_BYTES)

    def _put_sample(self, step: int, sample: Sample) -> None:
        most = int(_MOST_SECONDS * sample.rate)
        wave, target = sample.wave[:most], sample.target[:most]
        name = plain_folder(sample.name)
        if (recording := f"{_SAMPLES}target/{name}.wav") not in self._sent:
            self._put_file(recording, encode_bytes(target, "wav16", sample.rate), "samples")
        folder = f"{_SAMPLES}{step}"
        self._put_file(f"{folder}/{name}.wav", encode_bytes(wave, "wav16", sample.rate), "samples")
        with tempfile.TemporaryDirectory(prefix="rocktop-") as own:
            picture = Path(own) / "picture.png"
            draw_conversion(picture, target, wave, sample.rate, None, None, titles=("recorded", "sung by the voice"))
            self._put_file(f"{folder}/{name}.png", picture.read_bytes(), "samples")

    def _put_file(self, path: str, data: bytes, what: str) -> None:
        self._sent.add(path)
        self._put(lambda: self._tracker.log_file(self._id, path, data), what, len(data))

    def _put(self, work: Any, what: str, size: int = 0, *, vital: bool = False) -> None:
        self._outbox.put(Parcel(work, what, size, vital))

    @property
    def _id(self) -> str:
        assert self._run is not None, "the run's beginning is delivered first"
        return self._run.id


def recorded(files: Storage) -> str:
    """MLflow's id of the run whose files these are; empty if it was not tracked. Raises StorageError."""
    try:
        return str(json.loads(files.read(RECORD, limit=1 << 16)).get("run_id", ""))
    except (ObjectMissingError, ValueError, AttributeError):
        return ""


def flat(values: Mapping[str, Any], above: str = "") -> dict[str, Any]:
    """Nested settings under dotted names: ``{"a": {"b": 1}}`` -> ``{"a.b": 1}``; lists as JSON."""
    found: dict[str, Any] = {}
    for key, value in values.items():
        name = f"{above}.{key}" if above else str(key)
        if isinstance(value, Mapping):
            found.update(flat(value, name))
        else:
            found[name] = json.dumps(value) if isinstance(value, list | tuple) else value
    return found


def _tags(facts: Facts) -> dict[str, str]:
    """What the run is, in tags; those of MLflow's own names fill columns of its pages."""
    code = code_version()
    tags = {
        "voice": facts.name,
        "version": facts.recipe.version,
        "rate": str(facts.recipe.synthesizer.sample_rate),
        "dataset_fingerprint": str(facts.dataset.get("fingerprint", "")),
        "rocktop_version": code["version"],
        "mlflow.source.name": "train_loops.rvc",
        "mlflow.source.type": "JOB",
    }
    if "commit" in code:
        tags["mlflow.source.git.commit"] = code["commit"]
    return tags


def _kept(number: int) -> bool:
    """Whether the samples of a run's n-th validation are kept: all of the first 16, then 8 of each further doubling."""
    return number % max(1, 1 << (number.bit_length() - 4) if number >= 16 else 1) == 0


def _reports(files: Storage, sent: set[str]) -> list[str]:
    """Keys of the run's reports, and of the samples that they show beyond those that were sent."""
    try:
        samples = [stat.key for stat in files.list(_SAMPLES)]
        return [key for key in _REPORTS if files.exists(key)] + [key for key in samples if key not in sent]
    except RocktopError as error:
        _log.warning("the reports are not added to the tracked run: %s", error.message)
        return []


def _number(text: str | None) -> int:
    return int(text) if text and text.isdecimal() else -1
