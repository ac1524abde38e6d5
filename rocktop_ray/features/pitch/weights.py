"""Weights of the neural pitch extractors: find the file, read its tensors safely, fit them to a network."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor, nn

from rocktop_ray.errors import VoiceFormatError
from rocktop_ray.store.fetch import find
from rocktop_ray.voices.safe_load import is_safetensors, load_pickle_tensors, load_safetensors

Network = TypeVar("Network", bound=nn.Module)


def weight_tensors(name: str, path: Path | str | None) -> Mapping[str, Tensor]:
    """Tensors of the weights file at ``path``, or of the installed ``name``, by name.

    Raises ModelMissingError if nothing is installed, UnsafeFileError or VoiceFormatError for an unusable file.
    """
    path = find(name) if path is None else path
    content = load_safetensors(path)[0] if is_safetensors(path) else load_pickle_tensors(path)
    tensors = content.get("model", content)
    if not isinstance(tensors, Mapping):
        raise VoiceFormatError(f"{Path(path).name}: no tensors under 'model'", stage="pitch")
    return {key: value for key, value in tensors.items() if isinstance(value, Tensor)}


def fit(
    build: Callable[[], Network],
    tensors: Mapping[str, Tensor],
    rename: Callable[[Mapping[str, Tensor]], dict[str, Tensor]],
    what: str,
    device: torch.device | str,
) -> Network:
    """The network that ``build`` makes, with the file's tensors as float32, in evaluation mode on ``device``.

    Raises VoiceFormatError with what was expected and what was found.
    """
    try:
        renamed = rename(tensors)
    except (KeyError, RuntimeError, IndexError) as error:
        reason = f"tensor {error} is missing" if isinstance(error, KeyError) else str(error).splitlines()[0]
        raise VoiceFormatError(f"this is not {what}: {reason}", stage="pitch") from error
    with torch.device("meta"):  # no memory, no random numbers for weights that are replaced
        network = build()
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
    # One at a time: the file's own tensors go as the network's come.
    network.load_state_dict({name: _laid_out(renamed.pop(name).float()) for name in expected}, assign=True)
    return network.eval().requires_grad_(False).to(device)


def _laid_out(tensor: Tensor) -> Tensor:
    """Contiguous; weights of 2-D convolutions channels-last, as their activations are."""
    return tensor.contiguous(memory_format=torch.channels_last if tensor.ndim == 4 else torch.contiguous_format)
