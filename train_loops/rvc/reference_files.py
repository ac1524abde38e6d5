"""Checkpoints of RVC's and Applio's trainers (``G_*.pth``, ``D_*.pth``), and starting from trained weights.

Such a file is a dictionary: ``model`` (float32 weights), ``iteration`` (the epoch, counted from 1), ``optimizer``
(AdamW's state, by position) and ``learning_rate``. Pretrained files have at least ``model``. Nothing in a file is run.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rocktop_ray.errors import VoiceFormatError
from rocktop_ray.models.rvc.weight_norm import load_by_file_name, other_order, weights_by_file_name
from rocktop_ray.store.atomic import atomic_path
from rocktop_ray.voices.rvc_format import RvcFile
from rocktop_ray.voices.safe_load import load_pickle_tensors
from train_loops.rvc.checkpoints import set_moments
from train_loops.rvc.step import AdversarialStep, Part

_SPEAKERS = "emb_g.weight"
_POSTERIOR = "enc_q."


def start_from_pretrained(
    step: AdversarialStep, generator: str | Path | None = None, discriminator: str | Path | None = None
) -> list[str]:
    """Begin with the weights of pretrained or checkpoint files, e.g. ``f0G48k.pth`` and ``f0D48k.pth``.

    Every weight must be there and fit, but for the number of speakers. Returns what stays fresh, one line each. Raises
    VoiceFormatError with a report, UnsafeFileError, VoiceNotFoundError or StorageError.
    """
    notes = []
    files: tuple[tuple[Part, str | Path | None], ...] = (("generator", generator), ("discriminator", discriminator))
    for part, path in files:
        if path is None:
            notes.append(f"the {part} is fresh")
        else:
            state = _model(_read(path, skip=("optimizer", "scaler")), Path(path).name)
            notes += load_part(step, part, state, Path(path).name)
    return notes


def start_from_voice(step: AdversarialStep, voice: RvcFile, name: str = "the voice") -> list[str]:
    """Begin with the generator of a finished voice (RVC's, Applio's or ours); the rest of it was not kept in the file.

    Returns what stays fresh, one line each. Raises VoiceFormatError with a report if the voice is of another
    configuration.
    """
    notes = load_part(step, "generator", voice.state, name, optional=(_POSTERIOR,))
    return [*notes, "the discriminator is fresh"]


def resume_reference(step: AdversarialStep, generator: str | Path, discriminator: str | Path) -> int:
    """Go on from a pair of checkpoints of RVC or Applio, with their optimizers; returns the epochs done.

    Raises as ``start_from_pretrained``, also if the number of speakers differs or an optimizer's state does not fit.
    """
    done = []
    files: tuple[tuple[Part, str | Path], ...] = (("generator", generator), ("discriminator", discriminator))
    for part, path in files:
        name = Path(path).name
        data = _read(path, skip=("scaler",))
        load_by_file_name(getattr(step, part), _model(data, name), name)
        _load_optimizer(step, part, data.get("optimizer"), name)
        epoch = data.get("iteration")
        if type(epoch) is not int or epoch < 0:
            raise VoiceFormatError(f"{name}: its 'iteration' is {str(epoch)[:20]!r}, expected the number of the epoch")
        done.append(epoch)
    if done[0] != done[1]:
        raise VoiceFormatError(f"the files are of different epochs: {done[0]} and {done[1]}")
    return done[0]


def write_reference(path: str | Path, step: AdversarialStep, part: Part, *, epochs: int) -> None:
    """Write ``G_*.pth`` (``part`` generator) or ``D_*.pth`` as RVC's trainer does, after ``epochs`` epochs.

    Raises StorageError.
    """
    rate = step.recipe.learning_rate(epochs)
    packed = step.optimizers[part].state_dict()
    own = {"lr": rate, "initial_lr": step.recipe.optimizer.learning_rate, "fused": None}
    optimizer = {
        "state": {
            index: {kind: value.cpu() for kind, value in each.items()} for index, each in packed["state"].items()
        },
        "param_groups": [{**group, **own} for group in packed["param_groups"]],
    }
    model = OrderedDict(
        (name, weight.detach().cpu()) for name, weight in weights_by_file_name(getattr(step, part)).items()
    )
    data = {"model": model, "iteration": epochs, "optimizer": optimizer, "learning_rate": rate}
    with atomic_path(path) as part_path:
        torch.save(data, part_path)


def load_part(
    step: AdversarialStep, part: Part, state: Mapping[str, Any], name: str, *, optional: tuple[str, ...] = ()
) -> list[str]:
    """Give a network the weights ``state`` from the file ``name``, by RVC's names, and its optimizer a fresh start.

    Every weight must be there and fit, but for the number of speakers and for names that begin with one of
    ``optional``. Returns what stays fresh, one line each. Raises VoiceFormatError with a report.
    """
    state, notes = dict(state), []
    if part == "generator":
        notes += _fit_speakers(step, state)
    missing = load_by_file_name(getattr(step, part), state, name, optional=optional)
    step.optimizers[part].state.clear()
    return notes + ([f"{len(missing)} weights of the posterior encoder are fresh"] if missing else [])


def _read(path: str | Path, skip: tuple[str, ...]) -> dict[Any, Any]:
    return load_pickle_tensors(path, skip=skip)


def _model(data: Mapping[Any, Any], name: str) -> dict[str, Any]:
    state = data.get("model")
    if not isinstance(state, dict) or not state:
        kind = "it is a finished voice: start from it as a voice" if "weight" in data else "it has no 'model'"
        raise VoiceFormatError(f"{name} is no training checkpoint or pretrained file: {kind}")
    return {str(key): value for key, value in state.items()}


def _fit_speakers(step: AdversarialStep, state: dict[str, Any]) -> list[str]:
    """Bring the speaker table to the recipe's rows: what is too much is dropped, what lacks stays fresh."""
    theirs, ours = state.get(_SPEAKERS), step.weights["generator"][_SPEAKERS].detach().cpu()
    if not isinstance(theirs, Tensor) or theirs.ndim != 2 or theirs.shape[1:] != ours.shape[1:]:
        return []
    rows, wanted = len(theirs), len(ours)
    if rows == wanted:
        return []
    state[_SPEAKERS] = torch.cat([theirs[:wanted].float(), ours[rows:]])
    return [
        f"{wanted - rows} of {wanted} speakers are fresh" if rows < wanted else f"{rows - wanted} speakers are dropped"
    ]


def _load_optimizer(step: AdversarialStep, part: Part, optimizer: Any, name: str) -> None:
    """By position: in the order of RVC's files, or in that of Applio's, whichever fits."""
    states = optimizer.get("state") if isinstance(optimizer, dict) else None
    names = list(step.weights[part])
    if not isinstance(states, dict) or set(states) != set(range(len(names))):
        raise VoiceFormatError(f"{name}: its optimizer state does not go with {len(names)} weights")
    for order in (names, list(other_order(getattr(step, part)))):
        by_name = {key: states[index] for index, key in enumerate(order)}
        if all(_fits(by_name[key], weight) for key, weight in step.weights[part].items()):
            set_moments(step, part, [by_name[key] for key in names], name)
            return
    raise VoiceFormatError(f"{name}: its optimizer state has other shapes than the weights")


def _fits(state: Any, weight: Tensor) -> bool:
    moment = state.get("exp_avg") if isinstance(state, dict) else None
    return isinstance(moment, Tensor) and moment.shape == weight.shape
