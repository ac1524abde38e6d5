"""The ``rocktop-student`` file: a causal student of the bundle as float16 safetensors that describe themselves.

Metadata keys, all strings: ``format`` ("rocktop-student"), ``format_version`` ("1"), ``kind`` ("listener" or
"live-net"), ``config`` (JSON of ``ListenerConfig`` or ``LiveConfig``), ``encoder`` (name of the content encoder whose
units these are), ``info``, ``licence``, ``credits``, ``training_data`` (SHA-256 over the training set), ``recipe``
(JSON).
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import safetensors
import safetensors.torch
import torch
from torch import nn

from rocktop_ray.errors import VoiceFormatError, VoiceNotFoundError
from rocktop_ray.store.atomic import atomic_path

FORMAT, VERSION = "rocktop-student", "1"
FOLDER = Path(__file__).parents[2] / "bundle"
"""Where the package keeps its students."""
_LARGEST = {"units": 4096, "width": 1024, "expansion": 8, "kernel": 31, "pitch_width": 1024, "mean_rows": 100_000,
            "content_dim": 4096, "speakers": 4096, "core_dim": 1024, "high_bands": 128}  # fmt: skip
"""Bounds on sizes that a file may ask for."""
_MOST_LAG, _MOST_BLOCKS, _MOST_DILATION = 20, 64, 256
_TUPLES = ("dilations", "pitch_dilations", "delays")

Student = TypeVar("Student", bound=nn.Module)
Config = TypeVar("Config")


@dataclass(frozen=True)
class StudentAbout:
    """What a file says about itself, beside its sizes."""

    encoder: str
    info: str = ""
    licence: str = ""
    credits: str = ""
    training_data: str = ""
    """SHA-256 over the training set."""
    recipe: dict[str, object] = field(default_factory=dict)


def write_student(path: Path, kind: str, net: nn.Module, config: Any, about: StudentAbout) -> None:
    """Write the student, of a kind and with a dataclass of sizes, with float16 weights; it appears when it is complete.

    Raises StorageError.
    """
    metadata = {
        "format": FORMAT,
        "format_version": VERSION,
        "kind": kind,
        "config": json.dumps(dataclasses.asdict(config)),
        "encoder": about.encoder,
        "info": about.info,
        "licence": about.licence,
        "credits": about.credits,
        "training_data": about.training_data,
        "recipe": json.dumps(about.recipe),
    }
    tensors = {name: value.detach().half().contiguous() for name, value in net.state_dict().items()}
    with atomic_path(path) as part:
        safetensors.torch.save_file(tensors, part, metadata)


def read_student(
    path: Path, kind: str, build: Callable[[Config], Student], sizes: type[Config]
) -> tuple[Student, StudentAbout]:
    """A student of a kind, of sizes in a dataclass. Raises VoiceNotFoundError, or VoiceFormatError with a report."""
    if not path.is_file():
        raise VoiceNotFoundError(f"there is no file {path}")
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            found = " ".join(metadata.get(name, "none") for name in ("format", "format_version", "kind"))
            if found != f"{FORMAT} {VERSION} {kind}":
                raise VoiceFormatError(f"{path}: expected {FORMAT} {VERSION} {kind}, found {found}")
            net, about = build(_config(sizes, json.loads(metadata["config"]))), _about(metadata)
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (safetensors.SafetensorError, OSError) as error:
        raise VoiceFormatError(f"{path}: not a readable safetensors file ({error})") from error
    except (KeyError, TypeError, ValueError) as error:
        raise VoiceFormatError(f"{path}: the description of the network is damaged ({error!r})") from error
    expected = net.state_dict()
    report = [f"missing {name}" for name in expected if name not in tensors]
    report += [f"unknown {name}" for name in tensors if name not in expected]
    for name in expected.keys() & tensors.keys():
        if expected[name].shape != tensors[name].shape:
            report.append(f"{name}: expected {tuple(expected[name].shape)}, found {tuple(tensors[name].shape)}")
        elif not tensors[name].is_floating_point() or not torch.isfinite(tensors[name]).all():
            report.append(f"{name}: not finite numbers")
    if report:
        raise VoiceFormatError(f"{path} does not fit its description: " + "; ".join(sorted(report)[:8]))
    net.load_state_dict({name: value.float() for name, value in tensors.items()})
    return net, about


def _config(kind: type[Config], given: dict[str, Any]) -> Config:
    """The sizes in a file, each within bounds. Raises ValueError or TypeError."""
    for name in _TUPLES:
        if name in given:
            given = {**given, name: tuple(given[name])}
            few = len(given[name]) <= _MOST_BLOCKS
            if not few or not all(type(value) is int and 0 <= value <= _MOST_DILATION for value in given[name]):
                raise ValueError(f"{name} {given[name]!r}")
            if name != "delays" and (not given[name] or min(given[name]) < 1):
                raise ValueError(f"{name} {given[name]!r}")
    config = kind(**given)
    for name in given:
        value = getattr(config, name)
        if name in _LARGEST and not (type(value) is int and 1 <= value <= _LARGEST[name]):
            raise ValueError(f"{name} {value!r} is not in 1 .. {_LARGEST[name]}")
    lag = config.lag  # type: ignore[attr-defined]
    if type(lag) is not int or not 0 <= lag <= _MOST_LAG:
        raise ValueError(f"a lag of {lag!r} frames")
    return config


def _about(metadata: dict[str, str]) -> StudentAbout:
    recipe = json.loads(metadata["recipe"])
    if not isinstance(recipe, dict):
        raise ValueError("recipe must be an object")
    texts = {name: metadata[name] for name in ("encoder", "info", "licence", "credits", "training_data")}
    return StudentAbout(recipe=recipe, **texts)
