"""MLflow's client, as far as runs and voices need it: typed, without its global state, with our errors.

MLflow is imported where a tracker is first used (it takes seconds), and must not call home.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import urlsplit

from rocktop_ray.errors import SettingsError, TrackingError, storage_errors
from rocktop_ray.tracking.place import TrackingPlace, masked

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.store.artifact.artifact_repo import ArtifactRepository

Status = Literal["RUNNING", "FINISHED", "FAILED", "KILLED"]

KEY_TAG = "rocktop.key"
"""Tag of the name under which a run is found again, whatever its id."""
STEP_TAG = "rocktop.step"
"""Tag of the last step whose values the store has, by kind: ``rocktop.step.train``."""

_MOST_TEXT, _MOST_PARAMS = 5000, 100
_IMPORTING = threading.Lock()
_QUIET = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_DISABLE_AGENT_HINT": "true",
    "MLFLOW_CONFIGURE_LOGGING": "false",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",  # with credentials, if they are in the address
}
"""MLflow takes these from the environment only."""
_OBJECT_STORES = ("s3", "gs", "r2", "b2", "wasbs", "abfss", "dbfs")
_TALKATIVE = ("mlflow", "alembic")
"""Loggers that tell of every step of making a database."""
_PATIENCE = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2"}
"""More tries of one request than these are the outbox's."""


@dataclass(frozen=True)
class Run:
    """A run as the store has it."""

    id: str
    experiment_id: str
    artifacts: str
    """Address of its files."""
    params: Mapping[str, str]
    tags: Mapping[str, str]
    status: str = ""
    created: bool = False
    """Whether it was made by this very call."""


class Tracker:
    """Writes to and reads from one store. Every method raises TrackingError, ``retryable`` where the store is down.

    Safe to use from one thread at a time. Making one contacts nobody; raises SettingsError without the ``track`` extra.
    """

    def __init__(self, place: TrackingPlace, experiment: str = "rocktop") -> None:
        self.place, self.experiment = place, experiment
        self._import()

    def ask(self) -> None:
        """Returns if the store answers."""
        with self.errors("reach"):
            self.client.search_experiments(max_results=1)

    def start_run(self, key: str, name: str, tags: Mapping[str, str]) -> Run:
        """The run of this key, running again, or a new one. ``tags`` are set in both cases."""
        with self.errors("begin a run in"):
            experiment = self._experiment_id()
            found = self.client.search_runs([experiment], f"tags.`{KEY_TAG}` = '{key}'", max_results=1)
            if found:
                run = found[0]
                self.client.update_run(run.info.run_id, "RUNNING")
                self._set_tags(run.info.run_id, tags)
            else:
                run = self.client.create_run(experiment, run_name=name, tags={**_texts(tags), KEY_TAG: key})
            return replace(_run(run), created=not found)

    def find_run(self, run_id: str) -> Run | None:
        """The run of this id; None if the store has none, or only a deleted one."""
        try:
            with self.errors("read a run of"):
                run = self.client.get_run(run_id)
        except TrackingError as error:
            if error.retryable:
                raise
            return None
        return _run(run) if run.info.lifecycle_stage == "active" else None

    def log_params(self, run_id: str, params: Mapping[str, Any]) -> None:
        """Parameters by name; MLflow keeps the first value that it is given."""
        from mlflow.entities import Param

        entries = [Param(plain_key(key), _text(value)) for key, value in params.items()]
        with self.errors("write parameters to"):
            for first in range(0, len(entries), _MOST_PARAMS):
                self.client.log_batch(run_id, params=entries[first : first + _MOST_PARAMS])

    def log_values(
        self, run_id: str, values: Mapping[str, float], step: int, time_ms: int, tags: Mapping[str, str]
    ) -> None:
        """At most 900 metrics of a step, and tags, in one request; the same again changes nothing."""
        from mlflow.entities import Metric, RunTag

        metrics = [Metric(plain_key(key), float(value), time_ms, step) for key, value in values.items()]
        with self.errors("write values to"):
            for first in range(0, max(len(metrics), 1), 900):
                given = (
                    [RunTag(key, value) for key, value in _texts(tags).items()] if first + 900 >= len(metrics) else []
                )
                self.client.log_batch(run_id, metrics=metrics[first : first + 900], tags=given)

    def log_dataset(self, run_id: str, name: str, digest: str, source: str, profile: str) -> None:
        """The dataset that a run reads. ``digest``: its fingerprint, of which MLflow keeps 36 characters."""
        from mlflow.entities import Dataset, DatasetInput, InputTag

        dataset = Dataset(name[:500], digest[:36], "rocktop", source, profile=profile[:16_000_000])
        with self.errors("write the dataset to"):
            self.client.log_inputs(run_id, [DatasetInput(dataset, [InputTag("mlflow.data.context", "training")])])

    def log_file(self, run_id: str, path: str, data: bytes) -> None:
        """A file of the run, under a path with slashes; one of that path is replaced."""
        place = PurePosixPath(path)
        folder = str(place.parent) if place.parent.name else None
        with storage_errors("the temporary folder"), tempfile.TemporaryDirectory(prefix="rocktop-") as own:
            file = Path(own) / place.name
            file.write_bytes(data)
            with self.errors("write files to"):
                self.client.log_artifact(run_id, str(file), folder)

    def log_folder(self, run_id: str, folder: Path, path: str) -> None:
        """The files of a folder, as files of the run under ``path``."""
        with self.errors("write files to"):
            self.client.log_artifacts(run_id, str(folder), path)

    def end_run(self, run_id: str, status: Status, tags: Mapping[str, str]) -> None:
        """How a run ended."""
        with self.errors("end a run in"):
            self._set_tags(run_id, tags)
            if status == "RUNNING":
                self.client.update_run(run_id, status)
            else:
                self.client.set_terminated(run_id, status)

    def files_at(self, address: str) -> ArtifactRepository:
        """The files at an address that the store told: in an object store, with the tracking server itself, or in a
        folder if no server stands between. Raises TrackingError at others, which are asked nothing."""
        from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

        parts, own = urlsplit(address), urlsplit(self.place.uri)
        folder = parts.scheme in ("", "file") or len(parts.scheme) == 1
        if folder and self.place.remote:
            raise TrackingError(
                f"the server {self.place.shown} keeps its files in a folder of its own machine: start it with "
                "--artifacts-destination, so that it hands them out"
            )
        served = parts.scheme in ("mlflow-artifacts", "http", "https")
        other = (parts.hostname, parts.port) != (own.hostname, own.port)
        if (served and parts.netloc and other) or not (folder or served or parts.scheme in _OBJECT_STORES):
            raise TrackingError(f"{self.place.shown} says that files lie at {masked(address)[:100]}: not opened")
        with self.errors("open files of"):
            return get_artifact_repository(address, tracking_uri=self.place.uri, registry_uri=self.place.uri)

    @cached_property
    def client(self) -> MlflowClient:
        """MLflow's own; to be used inside ``errors``. A store of this machine is made here."""
        from mlflow import MlflowClient

        if not self.place.remote and self.place.uri.startswith("sqlite"):
            file = Path(self.place.uri.partition(":///")[2])
            with storage_errors(file.parent, "make"):
                file.parent.mkdir(parents=True, exist_ok=True)
        return MlflowClient(tracking_uri=self.place.uri, registry_uri=self.place.uri)

    @contextmanager
    def errors(self, doing: str) -> Iterator[None]:
        """Turn what MLflow, its databases and object stores raise into a TrackingError without secrets."""
        try:
            yield
        except _failures() as error:
            said = self.place.masked(error).strip().splitlines() or [type(error).__name__]
            message = f"cannot {doing} {self.place.shown}: {said[0][:300]}"
            raise TrackingError(message, retryable=not _refused(error)) from None  # the cause may tell secrets

    def _experiment_id(self) -> str:
        found = self.client.get_experiment_by_name(self.experiment)
        if found is None:
            place = f"{self.place.artifacts}/{plain_folder(self.experiment)}" if self.place.artifacts else None
            with contextlib.suppress(_failures()[0]):  # another process was faster
                return str(self.client.create_experiment(self.experiment, artifact_location=place))
            found = self.client.get_experiment_by_name(self.experiment)
        if found is None or found.lifecycle_stage != "active":
            raise TrackingError(
                f"{self.place.shown} has no usable experiment {self.experiment!r}: it was deleted; restore it with "
                "'mlflow experiments restore', or choose another name",
                retryable=False,
            )
        return str(found.experiment_id)

    def _set_tags(self, run_id: str, tags: Mapping[str, str]) -> None:
        from mlflow.entities import RunTag

        self.client.log_batch(run_id, tags=[RunTag(key, value) for key, value in _texts(tags).items()])

    @staticmethod
    def _import() -> None:
        with _IMPORTING:
            os.environ.update(_QUIET)
            for name, value in _PATIENCE.items():
                os.environ.setdefault(name, value)
            try:
                import mlflow  # noqa: F401
            except ModuleNotFoundError as error:
                if error.name != "mlflow":
                    raise
                message = "tracking needs MLflow: pip install 'rocktop-ray[track]' (or tracking.uri=none to do without)"
                raise SettingsError(message, stage="tracking") from None
            for name in _TALKATIVE:
                logger = logging.getLogger(name)
                logger.setLevel(max(logger.level, logging.WARNING))


def plain_key(text: str) -> str:
    """A name as MLflow allows it for parameters and metrics: letters, digits and ``_-./ `` of at most 250."""
    key = re.sub(r"[^\w./ -]", "_", text, flags=re.ASCII)
    parts = [part for part in PurePosixPath(key).parts if part not in ("/", "..", ".")]
    return "/".join(parts)[:250] or "_"


def plain_folder(text: str) -> str:
    """A folder's name made of any text."""
    return re.sub(r"[^\w -]+", "_", text, flags=re.ASCII).strip()[:80] or "_"


def _run(run: Any) -> Run:
    info, data = run.info, run.data
    return Run(
        info.run_id, str(info.experiment_id), info.artifact_uri or "", dict(data.params), dict(data.tags), info.status
    )


def _texts(tags: Mapping[str, str]) -> dict[str, str]:
    return {key: _text(value) for key, value in tags.items()}


def _text(value: object) -> str:
    text = str(value)
    return text if len(text) <= _MOST_TEXT else text[: _MOST_TEXT - 3] + "..."


def _failures() -> tuple[type[Exception], ...]:
    """What MLflow and the clients beneath it raise; those that are not loaded cannot have raised."""
    from mlflow.exceptions import MlflowException

    kinds: list[type[Exception]] = [MlflowException, OSError]  # OSError: also what requests raises
    for module, name in (
        ("sqlalchemy.exc", "SQLAlchemyError"),
        ("botocore.exceptions", "BotoCoreError"),
        ("botocore.exceptions", "ClientError"),
        ("boto3.exceptions", "Boto3Error"),
    ):
        if module in sys.modules:
            kinds.append(getattr(sys.modules[module], name))
    return tuple(kinds)


def _refused(error: Exception) -> bool:
    """Whether the store understood and said no, so that asking again is in vain."""
    status = 500
    if hasattr(error, "get_http_status_code"):
        status = error.get_http_status_code()
    elif getattr(error, "response", None) is not None:
        response: Any = error.response  # type: ignore[attr-defined]
        told = response.get("ResponseMetadata", {}).get("HTTPStatusCode") if isinstance(response, dict) else None
        status = told or getattr(response, "status_code", None) or 500
    return 400 <= int(status) < 500 and int(status) not in (408, 425, 429)
