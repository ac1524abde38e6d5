"""Content units from HuBERT base, ContentVec and relatives, as RVC uses them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from threading import Lock
from typing import Literal, get_args

import numpy as np
import torch
from torch import Tensor

from rocktop_ray.errors import AudioError, SettingsError, VoiceFormatError
from rocktop_ray.features.content.hubert_files import read_hubert
from rocktop_ray.heap import loading
from rocktop_ray.models.hubert import Hubert, HubertConfig
from rocktop_ray.models.hubert_stream import HubertStream, HubertWeights, streamable
from rocktop_ray.protocols import Array, ContentSpec

Version = Literal["v1", "v2"]
"""``v1``: layer 9 and the final projection; ``v2``: the last layer."""

_V1_LAYER = 9
_LISTED = 4


class HubertEncoder:
    """A content encoder (``protocols.ContentEncoder``): 16 kHz audio -> units, 50/s.

    Unit i is made of samples 320 i to 320 i + 400. The audio is taken as it is: RVC does not normalise it.
    """

    def __init__(
        self, state: Mapping[str, Tensor], config: HubertConfig, *, version: Version = "v2", device: str = "cpu"
    ) -> None:
        """``state`` in the names of ``models.hubert``. Raises VoiceFormatError if it does not fit ``config``."""
        if version not in get_args(Version):
            raise SettingsError(f"HuBERT units are v1 or v2, not {version!r}", stage="content")
        dim = config.hidden_size
        self._layer = config.num_hidden_layers
        if version == "v1":
            if config.classifier_proj_size is None:
                raise VoiceFormatError(
                    "this content encoder has no final_proj, which v1 voices need; hubert_base.pt has one",
                    stage="content",
                )
            if config.num_hidden_layers < _V1_LAYER:
                raise VoiceFormatError(
                    f"v1 units come from layer {_V1_LAYER}, this content encoder has {config.num_hidden_layers} layers",
                    stage="content",
                )
            dim = config.classifier_proj_size
            self._layer = _V1_LAYER
        self._spec = ContentSpec(f"hubert-{version}", dim)
        self._config = config
        self._device = torch.device(device)
        self._net = _build(state, config).to(self._device)
        self._final = self._net.final_proj if version == "v1" else None
        self._packed: HubertWeights | None = None
        self._packing = Lock()

    @classmethod
    def load(cls, path: str | Path, *, version: Version = "v2", device: str = "cpu") -> HubertEncoder:
        """From a fairseq ``.pt``, a transformers folder, or a weight file in one (see ``hubert_files.read_hubert``)."""
        with loading():
            state, config = read_hubert(path)
            return cls(state, config, version=version, device=device)

    @property
    def spec(self) -> ContentSpec:
        """Name and width of the units."""
        return self._spec

    def stream(self, left: int, ahead: int) -> HubertStream | None:
        """The streaming form, with ``left`` units of context and ``ahead`` beyond the final ones.

        Its weights are made ready once for all streams, which takes as much memory as half precision does. None off
        the processor, or for a network whose units are not 20 ms apart.
        """
        if self._device.type != "cpu" or not streamable(self._config):
            return None
        with self._packing:
            if self._packed is None:
                self._packed = HubertWeights(self._net, self._layer, self._final)
        return HubertStream(self._packed, left, ahead)

    @torch.inference_mode()
    def encode(self, audio: Array) -> Array:
        """Audio ``[samples]`` at 16 kHz, at least 400 -> units ``[(samples - 400) // 320 + 1, dim]``.

        Raises AudioError on a shorter or non-finite take.
        """
        if audio.ndim != 1 or self._config.frames(len(audio)) < 1:
            need = self._config.receptive_field
            raise AudioError(
                f"the content encoder needs [samples] with at least {need}, got {audio.shape}", stage="content"
            )
        if not np.isfinite(audio).all():
            raise AudioError("the audio has values that are not finite", stage="content")
        wave = torch.from_numpy(np.ascontiguousarray(audio, np.float32)).to(self._device)
        units = self._net(wave, self._layer)
        if self._final is not None:
            units = self._final(units)
        result: Array = units.cpu().numpy()
        return result


def _build(state: Mapping[str, Tensor], config: HubertConfig) -> Hubert:
    """The network with its weights; shapes are compared before any memory is taken for it."""
    with torch.device("meta"):
        net = Hubert(config)
    expected = {name: tuple(value.shape) for name, value in net.state_dict().items()}
    found = {name: tuple(value.shape) for name, value in state.items()}
    if expected != found:
        raise VoiceFormatError(
            f"the content encoder does not fit its configuration: {_report(expected, found)}", stage="content"
        )
    net.load_state_dict(state, assign=True)
    return net.eval().requires_grad_(False)


def _report(expected: dict[str, tuple[int, ...]], found: dict[str, tuple[int, ...]]) -> str:
    """What is missing, left over, or of another shape; a few names of each."""
    wrong = [
        f"{name} is {found[name]}, expected {expected[name]}"
        for name in expected
        if found.get(name, expected[name]) != expected[name]
    ]
    groups = (
        ("missing", sorted(expected.keys() - found.keys())),
        ("left over", sorted(found.keys() - expected.keys())),
        ("of another shape", sorted(wrong)),
    )
    parts = [
        f"{len(names)} {what} ({'; '.join(names[:_LISTED])}{'...' if len(names) > _LISTED else ''})"
        for what, names in groups
        if names
    ]
    return ", ".join(parts)
