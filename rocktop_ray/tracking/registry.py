"""Voices as registered models: a version is a folder with the voice's files, and a tag for each fact.

Reading one takes two files out of such a folder by our own rules; MLflow's loaders, which run what a model says, are
never used.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rocktop_ray.errors import (
    SettingsError,
    TrackingError,
    VoiceFormatError,
    VoiceNotFoundError,
    storage_errors,
)
from rocktop_ray.store.digest import file_sha256
from rocktop_ray.tracking.place import VARIABLE, tracking_place
from rocktop_ray.tracking.tracker import Tracker
from rocktop_ray.voices.names import NAME_RULE, valid_name

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion

PREFIX = "mlflow:"
MAX_BYTES = 4 << 30
"""Of a voice file or index that is fetched."""
SHA_TAG = "sha256"

_MOST_FILES = 1000
_ALIAS = re.compile(r"[\w-]{1,250}", re.ASCII)
_HOW = "write mlflow:NAME, mlflow:NAME/VERSION or mlflow:NAME@ALIAS"


@dataclass(frozen=True)
class VoiceReference:
    """Which version of a registered voice; without version and alias the latest."""

    name: str
    version: str = ""
    alias: str = ""

    def __str__(self) -> str:
        return f"{PREFIX}{self.name}" + (f"/{self.version}" if self.version else f"@{self.alias}" if self.alias else "")

    @classmethod
    def parse(cls, text: str) -> VoiceReference:
        """From ``mlflow:anna``, ``mlflow:anna/3`` or ``mlflow:anna@champion``. Raises SettingsError."""
        rest = text.removeprefix(PREFIX)
        name, _, alias = rest.partition("@")
        name, slash, version = name.partition("/")
        if text == rest or not valid_name(name) or (slash and "@" in rest):
            raise SettingsError(f"{text[:80]!r} names no registered voice: {_HOW}; names {NAME_RULE}", stage="voice")
        if (slash and not re.fullmatch(r"[1-9][0-9]{0,9}", version)) or ("@" in rest and not _ALIAS.fullmatch(alias)):
            raise SettingsError(f"{text[:80]!r} names no version of a registered voice: {_HOW}", stage="voice")
        return cls(name, version, alias)


def is_reference(text: str) -> bool:
    """Whether this is meant to be a registered voice."""
    return text.startswith(PREFIX)


@dataclass(frozen=True)
class RegisteredVoice:
    """A version of a registered model."""

    name: str
    version: str
    run_id: str

    @property
    def reference(self) -> str:
        """For ``rocktop voices import``."""
        return f"{PREFIX}{self.name}/{self.version}"


@dataclass(frozen=True)
class FetchedVoice:
    """The files of a version, brought here."""

    reference: VoiceReference
    """With its version."""
    voice: Path
    index: Path | None


def register_voice(
    tracker: Tracker, name: str, files: Sequence[Path], *, run_id: str, facts: Mapping[str, Any]
) -> RegisteredVoice:
    """Add a version of the voice ``name``: its files become files of the run, and the version points there.

    The same files of the same run again are the version that they are already.

    Args:
        files: the voice (``.safetensors``, first) and what belongs to it: ``.pth``, ``.index``, ``run.json``.
        facts: tags of the version, e.g. rate, version, fingerprint, score.

    Raises SettingsError on a name that a voice cannot have, TrackingError, StorageError.
    """
    if not valid_name(name):
        raise SettingsError(f"{name[:80]!r} cannot be a registered voice's name: {NAME_RULE}", stage="tracking")
    with storage_errors(files[0], "read"):
        digest = file_sha256(files[0])
    run = tracker.find_run(run_id)
    if run is None:
        raise TrackingError(f"{tracker.place.shown} has no run {run_id}")
    for known in _versions(tracker, name):
        if known.run_id == run_id and known.tags.get(SHA_TAG) == digest:
            return RegisteredVoice(name, str(known.version), run_id)
    path = f"voices/{digest[:12]}"
    with storage_errors("the temporary folder"), tempfile.TemporaryDirectory(prefix="rocktop-") as own:
        _describe(Path(own) / "MLmodel", path, run_id, files, facts)
        tracker.log_folder(run_id, Path(own), path)
    with tracker.errors("write the voice to"):
        for file in files:
            tracker.client.log_artifact(run_id, str(file), path)
        if not tracker.client.search_registered_models(f"name = '{name}'", max_results=1):
            tracker.client.create_registered_model(name, {"kind": "rocktop voice"}, "A singing voice of rocktop-ray.")
        made = tracker.client.create_model_version(
            name, f"{run.artifacts.rstrip('/')}/{path}", run_id, {**_told(facts), SHA_TAG: digest}
        )
    return RegisteredVoice(name, str(made.version), run_id)


def fetch_voice(
    tracker: Tracker, reference: VoiceReference, folder: Path, *, max_bytes: int = MAX_BYTES
) -> FetchedVoice:
    """Bring voice and index of a registered version into ``folder``, under names of our own.

    They are as unchecked as any foreign file. Raises VoiceNotFoundError (no such model, version, alias),
    VoiceFormatError (not exactly one voice in it, or too large), TrackingError, StorageError.
    """
    found = _resolve(tracker, reference)
    exact = VoiceReference(reference.name, str(found.version))
    files = tracker.files_at(_address(tracker, found))
    with tracker.errors("list the voice's files in"):
        listed = files.list_artifacts(None)
    names = {entry.path: entry.file_size for entry in listed[:_MOST_FILES] if not entry.is_dir and _plain(entry.path)}
    voice = _only(names, exact, ".safetensors") or _only(names, exact, ".pth")
    if voice is None:
        raise VoiceFormatError(f"{exact} holds no voice (.safetensors or .pth)")
    index = _only(names, exact, ".index")
    brought: list[Path | None] = []
    for name in (voice, index):
        if name is None:
            brought.append(None)
            continue
        if (names[name] or 0) > max_bytes:
            raise VoiceFormatError(f"{exact}: {name} has {names[name]} bytes, more than {max_bytes}")
        target = folder / f"{reference.name}{Path(name).suffix.lower()}"
        with storage_errors(folder), tempfile.TemporaryDirectory(dir=folder) as own:
            with tracker.errors("fetch the voice from"):
                part = Path(files.download_artifacts(name, own))
            if part.is_symlink() or not part.is_file() or part.stat().st_size > max_bytes:
                raise VoiceFormatError(f"{exact}: {name} is no file of at most {max_bytes} bytes")
            part.replace(target)
        brought.append(target)
    assert brought[0] is not None
    return FetchedVoice(exact, brought[0], brought[1])


@contextmanager
def registered_voice(text: str, uri: str = "", *, max_bytes: int = MAX_BYTES) -> Iterator[FetchedVoice]:
    """The files of ``mlflow:NAME...``, while the block runs; ``uri`` as for ``tracking_place``.

    Raises SettingsError (no such form, no tracking, no MLflow), else as ``fetch_voice``.
    """
    reference = VoiceReference.parse(text)
    place = tracking_place(uri)
    if place is None:
        raise SettingsError(f"tracking is off, so there is no {reference}: set {VARIABLE}", stage="voice")
    with storage_errors("the temporary folder"), tempfile.TemporaryDirectory(prefix="rocktop-") as folder:
        yield fetch_voice(Tracker(place), reference, Path(folder), max_bytes=max_bytes)


def _versions(tracker: Tracker, name: str) -> list[ModelVersion]:
    """Its latest versions, the newest first; none if there is no such model."""
    with tracker.errors("look for voices in"):
        found = tracker.client.search_model_versions(
            f"name = '{name}'", max_results=100, order_by=["version_number DESC"]
        )
    return sorted(found, key=lambda version: -int(version.version))


def _resolve(tracker: Tracker, reference: VoiceReference) -> ModelVersion:
    have = _versions(tracker, reference.name)
    ready = [version for version in have if version.status == "READY"]
    found: ModelVersion | None = ready[0] if ready else None
    if reference.version:
        found = _get(tracker, tracker.client.get_model_version, reference.name, reference.version)
    elif reference.alias:
        found = _get(tracker, tracker.client.get_model_version_by_alias, reference.name, reference.alias)
    if found is not None:
        return found
    told = f"it has versions {', '.join(str(version.version) for version in have[:10])}" if have else "it has none such"
    raise VoiceNotFoundError(f"no registered voice {reference} in {tracker.place.shown}: {told}")


def _get(tracker: Tracker, ask: Callable[[str, str], ModelVersion], name: str, which: str) -> ModelVersion | None:
    """None if there is none."""
    from mlflow.exceptions import MlflowException

    with tracker.errors("look for a voice in"):
        try:
            return ask(name, which)
        except MlflowException as error:
            # An alias that is not there is told as a bad parameter.
            if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
                return None
            raise


def _address(tracker: Tracker, version: ModelVersion) -> str:
    """Where its files are; what leads over a run or a logged model is followed here."""
    with tracker.errors("look for the voice's files in"):
        address = str(tracker.client.get_model_version_download_uri(version.name, version.version))
        if (logged := re.fullmatch(r"models:/(m-[0-9a-f]+)/?", address)) is not None:
            address = str(tracker.client.get_logged_model(logged[1]).artifact_location)
        elif (of_run := re.fullmatch(r"runs:/+(\w+)/(.+)", address)) is not None:
            address = f"{str(tracker.client.get_run(of_run[1]).info.artifact_uri).rstrip('/')}/{of_run[2]}"
    if address.startswith(("runs:", "models:")):
        raise TrackingError(f"the files of {version.name} version {version.version} are nowhere: {address[:80]!r}")
    return address


def _plain(name: str) -> bool:
    return "/" not in name and "\\" not in name and not name.startswith(".") and name.isprintable()


def _only(names: Mapping[str, int | None], where: VoiceReference, suffix: str) -> str | None:
    found = sorted(name for name in names if name.lower().endswith(suffix))
    if len(found) > 1:
        raise VoiceFormatError(f"{where} holds {len(found)} files {suffix}, expected one: {', '.join(found[:5])}")
    return found[0] if found else None


def _told(facts: Mapping[str, Any]) -> dict[str, str]:
    return {key: str(value) for key, value in facts.items() if value not in ("", None)}


def _describe(path: Path, artifact_path: str, run_id: str, files: Sequence[Path], facts: Mapping[str, Any]) -> None:
    """MLmodel: what makes a folder a model for MLflow."""
    from mlflow.models import Model

    model = Model(artifact_path=artifact_path, run_id=run_id)
    model.add_flavor("rocktop", voice=files[0].name, **_told(facts))
    model.save(str(path))
