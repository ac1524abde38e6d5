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

from torch import nn

from rocktop_ray.models.listener import ListenerConfig, ListenerNet, ListenerStream, PitchStream
from rocktop_ray.models.singer.live_net import LiveConfig, LiveFrameNet, LiveNet
from rocktop_ray.voices.network_file import read_network, write_network
from rocktop_ray.voices.open import bundle_folder

FORMAT, VERSION = "rocktop-student", "1"
LISTENER, LIVE_NET = "listener", "live-net"
"""The kinds."""
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
    write_network(path, net, metadata)


def listener_path() -> Path:
    """The listener that comes with the package."""
    return bundle_folder() / "listener.safetensors"


def live_net_path() -> Path:
    """The live net of the package's voice."""
    return bundle_folder() / "live_net.safetensors"


def read_listener(path: Path) -> tuple[ListenerNet, StudentAbout]:
    """A listener's network and description. Raises VoiceNotFoundError, or VoiceFormatError with a report."""
    return _read(path, LISTENER, ListenerNet, ListenerConfig)


def read_live_net(path: Path) -> tuple[LiveFrameNet, StudentAbout]:
    """A live net's network and description. Raises as ``read_listener``."""
    return _read(path, LIVE_NET, LiveFrameNet, LiveConfig)


def open_listener(path: Path | None = None) -> ListenerStream:
    """The listener of the package, or that of a file. Raises as ``read_listener``."""
    return ListenerStream(read_listener(path or listener_path())[0])


def open_pitch(path: Path | None = None) -> PitchStream:
    """The pitch of the listener alone. Raises as ``read_listener``."""
    return PitchStream(read_listener(path or listener_path())[0])


def open_live_net(path: Path | None = None) -> LiveNet:
    """The live net of the package's voice, or that of a file. Raises as ``read_listener``."""
    return LiveNet(read_live_net(path or live_net_path())[0])


def _read(
    path: Path, kind: str, build: Callable[[Config], Student], sizes: type[Config]
) -> tuple[Student, StudentAbout]:
    """A student of a kind, of sizes in a dataclass."""
    return read_network(
        path,
        {"format": FORMAT, "format_version": VERSION, "kind": kind},
        lambda metadata: (build(_config(sizes, json.loads(metadata["config"]))), _about(metadata)),
    )


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
