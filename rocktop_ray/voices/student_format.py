"""The ``rocktop-student`` file: a causal student of the bundle as float16 safetensors that describe themselves.

Metadata keys, all strings: ``format`` ("rocktop-student"), ``format_version`` ("1"), ``kind`` ("listener" or
"live-net"), ``config`` (JSON of ``ListenerConfig`` or ``LiveConfig``), ``encoder`` (name of the content encoder whose
units these are), ``info``, ``licence``, ``credits``, ``training_data`` (SHA-256 over the training set), ``recipe``
(JSON).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar

from torch import nn

from rocktop_ray.models.about import NetworkAbout
from rocktop_ray.models.listener import ListenerConfig, ListenerNet, ListenerStream, PitchStream
from rocktop_ray.models.singer.live_net import LiveConfig, LiveFrameNet, LiveNet
from rocktop_ray.voices.description import describe, read_about, read_sizes
from rocktop_ray.voices.network_file import read_network, write_network
from rocktop_ray.voices.open import bundle_folder

LISTENER, LIVE_NET = "listener", "live-net"
"""The kinds."""
_FORMAT = {"format": "rocktop-student", "format_version": "1"}
_MOST_LAG = 20
"""Frames."""

Student = TypeVar("Student", bound=nn.Module)
Config = TypeVar("Config", ListenerConfig, LiveConfig)


def write_student(
    path: Path, kind: str, net: nn.Module, config: ListenerConfig | LiveConfig, about: NetworkAbout
) -> None:
    """Write a student of a kind and of some sizes, with float16 weights; it appears when it is complete.

    Raises StorageError.
    """
    write_network(path, net, {**_FORMAT, "kind": kind, **describe(config, about)})


def listener_path() -> Path:
    """The listener that comes with the package."""
    return bundle_folder() / "listener.safetensors"


def live_net_path() -> Path:
    """The live net of the package's voice."""
    return bundle_folder() / "live_net.safetensors"


def read_listener(path: Path) -> tuple[ListenerNet, NetworkAbout]:
    """A listener's network and description. Raises VoiceNotFoundError, or VoiceFormatError with a report."""
    return _read(path, LISTENER, ListenerNet, ListenerConfig)


def read_live_net(path: Path) -> tuple[LiveFrameNet, NetworkAbout]:
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
) -> tuple[Student, NetworkAbout]:
    """A student of a kind, of sizes in a dataclass."""

    def described(metadata: Mapping[str, str]) -> tuple[Student, NetworkAbout]:
        config = read_sizes(sizes, metadata)
        if config.lag > _MOST_LAG:
            raise ValueError(f"a lag of {config.lag} frames")
        return build(config), read_about(NetworkAbout, metadata)

    return read_network(path, {**_FORMAT, "kind": kind}, described)
