"""Content units from the Whisper encoder.

Units are the encoder's last layer, normalised over the take to zero mean and unit variance per dimension: a linear
probe finds the speaker in the raw features, but not after this. Takes above 30 s are read in windows of 30 s that
overlap by at least 4 s; windows are evenly spaced, and where they overlap each counts by its distance to its own edge.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import safetensors
import torch

from rocktop_ray.errors import AudioError, VoiceFormatError
from rocktop_ray.features.content.ctranslate2 import FORMAT
from rocktop_ray.models.whisper import MAX_FRAMES, MEL_WINDOW, LogMel, WhisperConfig, WhisperEncoderNet
from rocktop_ray.models.whisper_stream import WhisperStream
from rocktop_ray.protocols import Array, ContentSpec

OVERLAP = 200
"""Units that neighbouring windows share at least: 4 s."""


class WhisperEncoder:
    """A content encoder (``protocols.ContentEncoder``): 16 kHz audio -> normalised units, 50/s, unit i at i * 20 ms."""

    def __init__(self, net: WhisperEncoderNet, *, name: str = "whisper-base", device: str = "cpu") -> None:
        self._device = torch.device(device)
        self._net = net.eval().requires_grad_(False).to(self._device)
        self._mel = LogMel().to(self._device)
        self._spec = ContentSpec(name, net.config.width)

    @classmethod
    def load(cls, path: str | Path, *, name: str = "whisper-base", device: str = "cpu") -> WhisperEncoder:
        """From the safetensors file that ``rocktop models fetch`` makes. Raises VoiceFormatError if it is another."""
        return cls(load_net(path), name=name, device=device)

    @property
    def spec(self) -> ContentSpec:
        """Name and width of the units."""
        return self._spec

    def stream(self, left: int) -> WhisperStream | None:
        """The streaming form of ``features``, with ``left`` units of context; None off the processor."""
        return WhisperStream(self._net, self._mel, left) if self._device.type == "cpu" else None

    def encode(self, audio: Array) -> Array:
        """Audio ``[samples]`` at 16 kHz, at least 400 -> units ``[(samples // 160 + 1) // 2, dim]``.

        Raises AudioError on a shorter or non-finite take.
        """
        return normalise(self.features(audio))

    @torch.inference_mode()
    def features(self, audio: Array) -> Array:
        """The encoder's own output, before normalisation; same shape and errors as ``encode``."""
        if audio.ndim != 1 or len(audio) < MEL_WINDOW:
            raise AudioError(
                f"the content encoder needs [samples] with at least {MEL_WINDOW}, got {audio.shape}", stage="content"
            )
        if not np.isfinite(audio).all():
            raise AudioError("the audio has values that are not finite", stage="content")
        mel = self._mel(torch.from_numpy(np.ascontiguousarray(audio, np.float32)).to(self._device))
        frames = (mel.shape[1] + 1) // 2
        total = torch.zeros(frames, self._spec.dim, device=self._device)
        weights = torch.zeros(frames, 1, device=self._device)
        for start in window_starts(frames):
            part = self._net(mel[None, :, 2 * start : 2 * (start + MAX_FRAMES)])[0]
            ramp = torch.arange(1, len(part) + 1, device=self._device)
            weight = torch.minimum(ramp, ramp.flip(0)).clamp_max(OVERLAP).float()[:, None]
            total[start : start + len(part)] += weight * part
            weights[start : start + len(part)] += weight
        result: Array = (total / weights).cpu().numpy()
        return result


def window_starts(frames: int) -> list[int]:
    """First unit of each 30 s window over ``frames`` units: evenly spaced, the last one ends at the end."""
    if frames <= MAX_FRAMES:
        return [0]
    count = -(-(frames - OVERLAP) // (MAX_FRAMES - OVERLAP))
    return [round(i * (frames - MAX_FRAMES) / (count - 1)) for i in range(count)]


def normalise(features: Array) -> Array:
    """``[frames, dim]`` -> zero mean and unit variance per dimension over the frames (a constant dimension gives 0)."""
    mean = features.mean(0, dtype=np.float64)
    spread = features.std(0, dtype=np.float64)
    return ((features - mean) / np.maximum(spread, 1e-5)).astype(np.float32)


def load_net(path: str | Path) -> WhisperEncoderNet:
    """The network in a ``rocktop-whisper-encoder`` safetensors file, as float32."""
    if not Path(path).is_file():
        raise VoiceFormatError(f"there is no Whisper encoder file {path}", stage="content")
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            about = json.loads((file.metadata() or {}).get("rocktop", "{}"))
            state = {name: file.get_tensor(name).float() for name in file.keys()}  # noqa: SIM118
    except (safetensors.SafetensorError, OSError, json.JSONDecodeError) as error:
        raise VoiceFormatError(f"{path}: not a readable safetensors file ({error})", stage="content") from error
    if not isinstance(about, dict) or about.get("format") != FORMAT:
        raise VoiceFormatError(f"{path}: not a Whisper encoder made by 'rocktop models fetch'", stage="content")
    try:
        config = WhisperConfig(int(about["width"]), int(about["heads"]), int(about["layers"]))
        # Compared first: sizes alone must not take the memory of the machine.
        layers = len({name.split(".")[1] for name in state if name.startswith("blocks.")})
        if (config.width, config.layers) != (len(state["conv1.bias"]), layers) or config.width % config.heads:
            raise ValueError(
                f"the file says {config}, its tensors are {len(state['conv1.bias'])} wide, {layers} layers"
            )
        net = WhisperEncoderNet(config)
        net.load_state_dict(state)
    except (KeyError, ValueError, TypeError, ZeroDivisionError, RuntimeError) as error:
        raise VoiceFormatError(
            f"{path}: the encoder's tensors do not fit its sizes ({error})", stage="content"
        ) from error
    return net
