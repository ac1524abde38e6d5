"""A pretrained pair: the weights of generator and discriminator from which other runs start, in one safetensors file.

Tensors are ``{part}.weight.{name}`` as in ``checkpoints``, in float16; there is no optimizer. The metadata says which
recipe the pair is of and what it was made from. A checkpoint of a run is read as a pair, too.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, fields
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from rocktop_ray.errors import SettingsError, VoiceFormatError
from rocktop_ray.models.rvc.config import SynthesizerConfig
from rocktop_ray.store.atomic import atomic_path
from rocktop_ray.voices.safe_load import load_metadata, load_safetensors
from train_loops.rvc import checkpoints
from train_loops.rvc.recipe import Recipe
from train_loops.rvc.reference_files import load_part
from train_loops.rvc.step import PARTS, AdversarialStep

FORMAT = "rocktop-pretrained"
FORMAT_VERSION = 1

_FREE = {"speakers", "segment_size", "p_dropout"}
"""Of the synthesizer: what a run may have otherwise than its first weights."""


@dataclass(frozen=True)
class PairInfo:
    """What a pair says of itself. Texts are empty where it does not."""

    recipe: Recipe
    stock: str = ""
    """Name of the stock configuration, for ``recipe=...``."""
    content_name: str = ""
    """Content units that it was trained on."""
    steps: int = 0
    """Steps that it was trained for."""
    licence: str = ""
    training_data: str = ""
    """Fingerprints of the datasets, or names of the sources."""
    info: str = ""
    """Free text: credits."""


def write_pair(path: str | Path, step: AdversarialStep, info: PairInfo) -> None:
    """Write the weights of a run as a pair. Raises VoiceFormatError if one is too large for float16, StorageError."""
    tensors: dict[str, Tensor] = {}
    for part in PARTS:
        for name, weight in step.weights[part].items():
            half = weight.detach().cpu().to(torch.float16).contiguous()
            if not bool(half.isfinite().all()):
                raise VoiceFormatError(f"{part}.{name} holds values that float16 cannot hold")
            tensors[f"{part}.weight.{name}"] = half
    metadata = {
        "format": FORMAT,
        "format_version": str(FORMAT_VERSION),
        "recipe": json.dumps(info.recipe.as_mapping()),
        **{
            key: str(getattr(info, key))
            for key in ("stock", "content_name", "steps", "licence", "training_data", "info")
        },
    }
    with atomic_path(path) as part_path:
        save_file(tensors, part_path, metadata)


def read_info(path: str | Path) -> PairInfo:
    """What a pair, or a checkpoint, says of itself. Raises VoiceFormatError, VoiceNotFoundError, SettingsError."""
    path = Path(path)
    metadata = load_metadata(path)
    if metadata.get("format") == checkpoints.FORMAT:
        return PairInfo(checkpoints.read_recipe(path), steps=checkpoints.read_progress(path).step)
    if metadata.get("format") != FORMAT:
        raise VoiceFormatError(f"{path.name} is no pretrained pair (format {metadata.get('format', '')[:40]!r})")
    if metadata.get("format_version") != str(FORMAT_VERSION):
        found = metadata.get("format_version", "")[:20]
        raise VoiceFormatError(
            f"{path.name}: version {found!r} of a pretrained pair, this program reads {FORMAT_VERSION}"
        )
    try:
        recipe = json.loads(metadata.get("recipe", ""))
        steps = int(metadata.get("steps", "0"))
    except (ValueError, RecursionError) as error:
        raise VoiceFormatError(f"{path.name}: its metadata cannot be read: {str(error)[:80]}") from error
    if not isinstance(recipe, dict):
        raise VoiceFormatError(f"{path.name}: its recipe is no mapping")
    texts = {key: metadata.get(key, "") for key in ("stock", "content_name", "licence", "training_data", "info")}
    return PairInfo(Recipe.from_mapping(recipe), steps=steps, **texts)


def start_from_pair(step: AdversarialStep, path: str | Path) -> list[str]:
    """Begin with the weights of a pair or a checkpoint; the number of speakers may differ.

    Returns what stays fresh, one line each. Raises SettingsError if the run is of another configuration, with the
    recipe to choose; else as ``read_info``.
    """
    path = Path(path)
    info = read_info(path)
    check_fits(step.recipe, info.recipe.synthesizer, path.name, stock=info.stock)
    if info.recipe.discriminator != step.recipe.discriminator:
        raise _unfit(path.name, "it has another discriminator", info.stock)
    tensors, _ = load_safetensors(path, max_bytes=checkpoints.MAX_BYTES)
    notes = []
    for part in PARTS:
        start = f"{part}.weight."
        state = {key.removeprefix(start): tensor for key, tensor in tensors.items() if key.startswith(start)}
        notes += load_part(step, part, state, f"{path.name}, {part}")
    return notes


def check_fits(recipe: Recipe, theirs: SynthesizerConfig, name: str, *, stock: str = "") -> None:
    """Raise SettingsError if weights of the configuration ``theirs`` do not go into a run of ``recipe``.

    ``stock``: the recipe that they would go into, if it has a name.
    """
    ours = recipe.synthesizer
    other = [
        f"{field.name} {_short(getattr(theirs, field.name))}, not {_short(getattr(ours, field.name))}"
        for field in fields(SynthesizerConfig)
        if field.name not in _FREE and getattr(theirs, field.name) != getattr(ours, field.name)
    ]
    if other:
        raise _unfit(name, f"it has {'; '.join(other[:4])}{'; ...' if len(other) > 4 else ''}", stock)


def _unfit(name: str, why: str, stock: str) -> SettingsError:
    advice = f"set recipe={stock}" if stock else "choose the recipe that it was made with"
    return SettingsError(
        f"{name} is of another configuration than this run: {why}; {advice}, or start otherwise", stage="training"
    )


def _short(value: object) -> str:
    text = "-".join(map(str, value)) if isinstance(value, tuple) else str(value)
    return text[:40]
