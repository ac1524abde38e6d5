"""Save a run and go on from it exactly: one safetensors file with everything, written atomically.

Tensors are ``{part}.{kind}.{name}`` with the part ``generator`` or ``discriminator``, the kind ``weight``, ``exp_avg``,
``exp_avg_sq`` or ``step`` (the last three AdamW's), and the name of RVC's files. The metadata holds the recipe, the
progress and the scale of ``fp16`` as JSON. No state of a random generator is needed: draws and order are functions of
seed and step.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from rocktop_ray.errors import TrainingError, VoiceFormatError
from rocktop_ray.models.rvc.weight_norm import load_by_file_name
from rocktop_ray.store.atomic import atomic_path
from rocktop_ray.voices.safe_load import load_metadata, load_safetensors
from train_loops.rvc.recipe import Recipe
from train_loops.rvc.step import PARTS, AdversarialStep, Part

FORMAT = "rocktop-training"
FORMAT_VERSION = 1
MAX_BYTES = 8 << 30
"""Bound on a checkpoint's tensors; the stock v2 configuration has 1.3 GB."""

_MOMENTS = ("exp_avg", "exp_avg_sq", "step")


@dataclass(frozen=True)
class Progress:
    """Where a run stands."""

    step: int = 0
    """Steps done, which is the number of the next one."""
    epoch: int = 0
    """Epoch of the next step, counted from 0."""
    batch: int = 0
    """Number of the next batch within its epoch."""
    plan: str = ""
    """``BatchPlan.fingerprint``: on other examples the run goes on, but not exactly as it would have."""
    notes: dict[str, Any] = field(default_factory=dict)
    """What the caller wants to find again, as JSON can hold it: best score, tracker's run."""


def save(path: str | Path, step: AdversarialStep, progress: Progress) -> None:
    """Write a checkpoint between two steps. Raises StorageError."""
    tensors: dict[str, Tensor] = {}
    for part in PARTS:
        state = step.optimizers[part].state
        for name, weight in step.weights[part].items():
            tensors[f"{part}.weight.{name}"] = _plain(weight)
            for kind in _MOMENTS if weight in state else ():
                tensors[f"{part}.{kind}.{name}"] = _plain(state[weight][kind])
    metadata = {
        "format": FORMAT,
        "format_version": str(FORMAT_VERSION),
        "recipe": json.dumps(step.recipe.as_mapping()),
        "progress": json.dumps(asdict(progress)),
        "scaler": json.dumps(step.scaler.state_dict()),
    }
    with atomic_path(path) as part_path:
        save_file(tensors, part_path, metadata)


def read_recipe(path: str | Path) -> Recipe:
    """The recipe of a checkpoint, without its tensors. Raises VoiceFormatError, VoiceNotFoundError, SettingsError."""
    return Recipe.from_mapping(_json(_metadata(Path(path)), "recipe", Path(path).name))


def read_progress(path: str | Path) -> Progress:
    """Where the run of a checkpoint stands, without its tensors. Raises as ``read_recipe``."""
    name = Path(path).name
    values = _json(_metadata(Path(path)), "progress", name)
    kinds = {"step": int, "epoch": int, "batch": int, "plan": str, "notes": dict}
    if set(values) != set(kinds) or not all(type(values[key]) is kind for key, kind in kinds.items()):
        raise VoiceFormatError(f"{name}: its progress cannot be read: {str(values)[:80]}")
    return Progress(**values)


def restore(path: str | Path, step: AdversarialStep) -> Progress:
    """Put a checkpoint's weights, optimizers and scale into ``step``; on any device, in the precision of its recipe.

    Raises TrainingError if the networks are of other sizes; VoiceFormatError, VoiceNotFoundError or StorageError if
    the file cannot be used.
    """
    path = Path(path)
    theirs, progress = read_recipe(path), read_progress(path)
    for name in ("synthesizer", "discriminator", "spectrum"):
        if getattr(theirs, name) != getattr(step.recipe, name):
            raise TrainingError(
                f"{path.name} belongs to a run with another {name}: give the same settings, or start anew"
            )
    tensors, metadata = load_safetensors(path, max_bytes=MAX_BYTES)
    for part in PARTS:
        weights = {key: tensors.pop(f"{part}.weight.{key}") for key in _named(tensors, part, "weight")}
        load_by_file_name(getattr(step, part), weights, f"{path.name}, {part}")
        moments = {
            kind: {key: tensors.pop(f"{part}.{kind}.{key}") for key in _named(tensors, part, kind)} for kind in _MOMENTS
        }
        _restore_optimizer(step, part, moments, path.name)
    scaler = _json(metadata, "scaler", path.name)
    if scaler and step.scaler.is_enabled():
        step.scaler.load_state_dict(scaler)
    return progress


def set_moments(step: AdversarialStep, part: Part, states: list[dict[str, Tensor]], source: str) -> None:
    """Give an optimizer the states of its weights, in its order: ``exp_avg``, ``exp_avg_sq`` and ``step`` each.

    Raises VoiceFormatError if they do not fit the weights.
    """
    weights = step.weights[part]
    for (name, weight), state in zip(weights.items(), states, strict=True):
        for kind in _MOMENTS:
            value = state.get(kind)
            shape = torch.Size([]) if kind == "step" else weight.shape
            if not isinstance(value, Tensor) or value.shape != shape or not bool(value.isfinite().all()):
                raise VoiceFormatError(f"{source}: its optimizer state for {name} does not fit ({kind})")
    optimizer = step.optimizers[part]
    numbered = {index: {kind: each[kind] for kind in _MOMENTS} for index, each in enumerate(states)}
    optimizer.load_state_dict({"state": numbered, "param_groups": optimizer.state_dict()["param_groups"]})


def _restore_optimizer(step: AdversarialStep, part: Part, moments: Mapping[str, dict[str, Tensor]], name: str) -> None:
    if not any(moments.values()):  # saved before the first step
        step.optimizers[part].state.clear()
        return
    lacking = [key for key in step.weights[part] if any(key not in moments[kind] for kind in _MOMENTS)]
    if lacking:
        raise VoiceFormatError(f"{name}: the {part}'s optimizer state lacks {len(lacking)} weights, e.g. {lacking[0]}")
    states = [{kind: moments[kind][key] for kind in _MOMENTS} for key in step.weights[part]]
    set_moments(step, part, states, name)


def _named(tensors: Mapping[str, Tensor], part: str, kind: str) -> list[str]:
    start = f"{part}.{kind}."
    return [key.removeprefix(start) for key in tensors if key.startswith(start)]


def _plain(tensor: Tensor) -> Tensor:
    return tensor.detach().cpu().contiguous()


def _metadata(path: Path) -> dict[str, str]:
    metadata = load_metadata(path)
    if metadata.get("format") != FORMAT:
        raise VoiceFormatError(f"{path.name} is no training checkpoint (format {metadata.get('format', '')[:40]!r})")
    if metadata.get("format_version") != str(FORMAT_VERSION):
        found = metadata.get("format_version", "")[:20]
        raise VoiceFormatError(f"{path.name}: checkpoint version {found!r}, this program reads {FORMAT_VERSION}")
    return metadata


def _json(metadata: Mapping[str, str], key: str, name: str) -> dict[str, Any]:
    try:
        value = json.loads(metadata.get(key, ""))
    except (ValueError, RecursionError) as error:
        raise VoiceFormatError(f"{name}: its {key!r} cannot be read: {str(error)[:80]}") from error
    if not isinstance(value, dict):
        raise VoiceFormatError(f"{name}: its {key!r} is no mapping")
    return value
