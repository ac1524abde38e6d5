"""The account of a run, ``run.json``: settings, data, how it ended, and the files that it left with their hashes."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch

from rocktop_ray.config.training import TrainingConfig
from rocktop_ray.errors import ObjectMissingError
from rocktop_ray.store.addresses import redact
from rocktop_ray.store.storage import Storage
from rocktop_ray.tracking.code_version import code_version
from rocktop_ray.voices.rvc_format import RvcFile
from train_loops.dataset.reader import Dataset
from train_loops.rvc.callbacks import Outcome
from train_loops.rvc.resolve import recipe_for

RUN = "run.json"
KIND = "rocktop training run"
FORMAT = 1
_LIMIT = 16 << 20


@dataclass(frozen=True)
class FinishedFile:
    """A file of a finished run."""

    key: str
    """In the run's store."""
    bytes: int
    sha256: str


def public(value: Any) -> Any:
    """Settings as plain data, to be shown: addresses in them lose credentials and queries."""
    if isinstance(value, Mapping):
        return {key: public(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [public(item) for item in value]
    return redact(value) if isinstance(value, str) and ("@" in value or "?" in value) and "://" in value else value


def account_of(
    config: TrainingConfig,
    storage: Storage,
    dataset: Dataset,
    outcome: Outcome,
    voice: RvcFile,
    files: Sequence[FinishedFile],
    index: Mapping[str, Any],
) -> dict[str, Any]:
    """What ``run.json`` says; plain data. ``index``: what the index was made of, empty without one."""
    manifest = dataset.manifest
    return {
        "kind": KIND,
        "format": FORMAT,
        "name": config.name,
        "place": storage.url,
        "version": {**code_version(), "torch": torch.__version__},
        "config": public(config.as_mapping()),
        "recipe": recipe_for(config, manifest).as_mapping(),
        "dataset": {
            "fingerprint": manifest.fingerprint,
            "counts": manifest.counts(),
            "networks": asdict(manifest.networks),
            "speakers": manifest.speakers,
        },
        "outcome": asdict(outcome),
        "voice": {
            "step": voice.extra["step"],
            "epoch": voice.extra["epoch"],
            "score": voice.extra.get("score"),
            "content": voice.content_name,
            "sample_rate": voice.config.sample_rate,
            "licence": voice.licence,
        },
        "metrics": voice.extra.get("metrics", {}),
        "index": dict(index),
        "files": {file.key: {"bytes": file.bytes, "sha256": file.sha256} for file in files},
    }


def read_account(storage: Storage) -> dict[str, Any]:
    """The account of an earlier call; empty if there is none that can be used. Raises StorageError."""
    try:
        account = json.loads(storage.read(RUN, limit=_LIMIT))
    except (ObjectMissingError, ValueError):
        return {}
    usable = isinstance(account, dict) and account.get("kind") == KIND and account.get("format") == FORMAT
    return account if usable else {}


def write_account(storage: Storage, account: Mapping[str, Any]) -> None:
    """Puts ``run.json`` into the run's store. Raises StorageError."""
    storage.write(RUN, json.dumps(account, ensure_ascii=False, indent=1).encode())
