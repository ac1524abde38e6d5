"""Make a small voice of a full training checkpoint (``G_*.pth``)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rocktop_ray.errors import VoiceFormatError
from rocktop_ray.voices.rvc_format import RvcFile, from_dict
from rocktop_ray.voices.safe_load import load_pickle_tensors

_DILATIONS = [[1, 3, 5], [1, 3, 5], [1, 3, 5]]
_STOCK: dict[tuple[int, bool], tuple[list[int], list[int], int]] = {
    # rate, five stages: upsample rates, kernel sizes, bins of the spectrogram
    (24_000, False): ([10, 6, 2, 2], [20, 12, 4, 4], 513),
    (32_000, False): ([10, 8, 2, 2], [20, 16, 4, 4], 513),
    (32_000, True): ([10, 4, 2, 2, 2], [16, 16, 4, 4, 4], 513),
    (40_000, False): ([10, 10, 2, 2], [16, 16, 4, 4], 1025),
    (48_000, False): ([12, 10, 2, 2], [24, 20, 4, 4], 1025),
    (48_000, True): ([10, 6, 2, 2, 2], [16, 16, 4, 4, 4], 1025),
}
"""The training configurations of RVC and Applio: a checkpoint does not hold its own."""


def extract(path: str | Path, *, sample_rate: int | None = None, info: str = "") -> RvcFile:
    """The voice in a training checkpoint, without posterior encoder and optimizer, in float16.

    The checkpoint does not say its rate: it is told by the decoder's layers, or must be given (RefineGAN). Raises
    VoiceFormatError if this is no generator checkpoint or of no stock configuration.
    """
    path = Path(path)
    data = load_pickle_tensors(path, skip=("optimizer", "scaler"))
    state = data.get("model")
    if not isinstance(state, dict) or "enc_p.emb_phone.weight" not in state:
        kind = "it is a voice already" if "weight" in data else "expected a generator checkpoint (G_*.pth)"
        raise VoiceFormatError(f"{path.name} cannot be extracted: {kind}")
    state = {str(key): value for key, value in state.items() if isinstance(value, Tensor)}
    rate, config = _config(state, sample_rate, path.name)
    weight = {key: tensor.to(torch.float16) for key, tensor in state.items() if "enc_q" not in key}
    epoch = data.get("iteration")
    small: dict[str, Any] = {
        "weight": weight,
        "config": config,
        "info": info or (f"{epoch}epoch" if isinstance(epoch, int) else ""),
        "sr": f"{rate // 1000}k",
        "f0": int("enc_p.emb_pitch.weight" in state),
    }
    return from_dict(small, path.name)


def _config(state: Mapping[str, Tensor], sample_rate: int | None, name: str) -> tuple[int, list[Any]]:
    """The rate and the ``config`` list of the stock configuration whose layers the weights show."""
    kernels = _kernels(state)
    spec = state["enc_q.pre.weight"].shape[1] if "enc_q.pre.weight" in state else None
    fits = [
        (rate, rates, sizes, bins)
        for (rate, _), (rates, sizes, bins) in _STOCK.items()
        if sample_rate in (None, rate)
        and sizes == (kernels or sizes)
        and (kernels or len(sizes) == 4)
        and spec in (None, bins)
    ]
    if len({rate for rate, *_ in fits}) != 1:
        told = "give its sample rate" if fits and sample_rate is None else "its layers match no stock configuration"
        raise VoiceFormatError(f"{name}: the sample rate cannot be told from the weights: {told}")
    rate, rates, sizes, bins = fits[0]
    # All stock configurations agree on the rest; the speaker count is read from the weights.
    return rate, [bins, 32, 192, 192, 768, 2, 6, 3, 0, "1", [3, 7, 11], _DILATIONS, rates, 512, sizes, 109, 256, rate]


def _kernels(state: Mapping[str, Tensor]) -> list[int]:
    """Kernel sizes of the decoder's upsampling layers, in order; empty for RefineGAN, which has none."""
    pattern = re.compile(r"dec\.(?:ups|upsamples)\.(\d+)\.(?:weight_v|parametrizations\.weight\.original1)")
    found = {}
    for key, tensor in state.items():
        if match := pattern.fullmatch(key):
            found[int(match[1])] = int(tensor.shape[-1])
    return [found[number] for number in sorted(found)]
