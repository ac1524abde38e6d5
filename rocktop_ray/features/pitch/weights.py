"""Weights of the neural pitch extractors: find the file, read its tensors safely, fit them to a network."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor, nn

from rocktop_ray import paths
from rocktop_ray.errors import VoiceFormatError

Network = TypeVar("Network", bound=nn.Module)


def weight_tensors(name: str, path: Path | str | None) -> Mapping[str, Tensor]:
    """Tensors of the weights file at ``path``, or of the installed ``name``.

    Raises ModelMissingError if nothing is installed, UnsafeFileError or VoiceFormatError for an unusable file.
    """
    files = {"fcpe": "fcpe_c_v001.pt", "rmvpe": "rmvpe.pt", "crepe": "full.pth", "crepe-tiny": "tiny.pth"}
    found = torch.load(path or paths.models() / files[name], map_location="cpu", weights_only=True)
    return dict(found.get("model", found))


def fit(
    network: Network,
    tensors: Mapping[str, Tensor],
    rename: Callable[[Mapping[str, Tensor]], dict[str, Tensor]],
    what: str,
    device: torch.device | str,
) -> Network:
    """``network`` with the file's tensors, as float32, in evaluation mode on ``device``.

    Raises VoiceFormatError with what was expected and what was found.
    """
    try:
        renamed = rename(tensors)
    except KeyError as missing:
        raise VoiceFormatError(f"this is not {what}: tensor {missing} is missing", stage="pitch") from missing
    expected = network.state_dict()
    wrong = [f"{name}: missing" for name in expected.keys() - renamed.keys()]
    wrong += [f"{name}: not expected" for name in renamed.keys() - expected.keys()]
    wrong += [
        f"{name}: shape {list(renamed[name].shape)}, expected {list(tensor.shape)}"
        for name, tensor in expected.items()
        if name in renamed and renamed[name].shape != tensor.shape
    ]
    if wrong:
        report = "; ".join(sorted(wrong)[:5]) + (f"; and {len(wrong) - 5} more" if len(wrong) > 5 else "")
        raise VoiceFormatError(f"this is not {what}: {report}", stage="pitch")
    network.load_state_dict({name: tensor.float() for name, tensor in renamed.items()})
    return network.eval().requires_grad_(False).to(device)
