"""Our own files of networks: safetensors with float16 weights, whose metadata say all else.

Which keys a kind of file has is for the kind to say (``description.py``); here is what they share: writing, and the
check that the weights fit the network that the metadata describe.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from rocktop_ray.errors import VoiceFormatError, VoiceNotFoundError
from rocktop_ray.store.atomic import atomic_path

Net = TypeVar("Net", bound=nn.Module)
About = TypeVar("About")
_SHOWN = 8


def write_network(path: Path, net: nn.Module, metadata: dict[str, str]) -> None:
    """Write the weights as float16; the file appears when it is complete. Raises StorageError."""
    tensors = {name: value.detach().half().contiguous() for name, value in net.state_dict().items()}
    with atomic_path(path) as part:
        safetensors.torch.save_file(tensors, part, metadata)


def read_network(
    path: Path, kind: Mapping[str, str], describe: Callable[[dict[str, str]], tuple[Net, About]]
) -> tuple[Net, About]:
    """The network with its weights, and what the file says of itself.

    Args:
        path: the file.
        kind: what the metadata must say of the format.
        describe: makes both from the metadata; KeyError, TypeError and ValueError mean that they are damaged.

    Raises VoiceNotFoundError, or VoiceFormatError with a report of what does not fit.
    """
    if not path.is_file():
        raise VoiceNotFoundError(f"there is no file {path}")
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            if any(metadata.get(key) != value for key, value in kind.items()):
                found = " ".join(metadata.get(key, "none") for key in kind)
                raise VoiceFormatError(f"{path}: expected format {' '.join(kind.values())}, found {found}")
            net, about = describe(metadata)
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (safetensors.SafetensorError, OSError) as error:
        raise VoiceFormatError(f"{path}: not a readable safetensors file ({error})") from error
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise VoiceFormatError(f"{path}: its description is damaged ({error!r})") from error
    report = _misfits(net.state_dict(), tensors)
    if report:
        raise VoiceFormatError(f"{path} does not fit its description: " + "; ".join(report[:_SHOWN]))
    net.load_state_dict({name: value.float() for name, value in tensors.items()})
    return net, about


def _misfits(expected: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> list[str]:
    """What keeps the weights ``found`` from being those of a network."""
    report = [f"missing {name}" for name in expected if name not in found]
    for name, value in found.items():
        if name not in expected:
            report.append(f"unknown {name}")
        elif value.shape != expected[name].shape:
            report.append(f"{name}: expected {tuple(expected[name].shape)}, found {tuple(value.shape)}")
        elif not value.is_floating_point() or not torch.isfinite(value).all():
            report.append(f"{name}: not finite numbers")
    return report
