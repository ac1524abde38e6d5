"""How a listener would rate a take, without a reference: DNSMOS by the networks of Microsoft's speechmos (MIT).

P.835 (Reddy et al., "DNSMOS P.835", 2022) and P.808 (Reddy et al. 2021). The networks lie in the models folder
(``rocktop models fetch dnsmos dnsmos-p808``) and run in onnxruntime on the CPU.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from rocktop_ray.audio.mel import hz_to_mel, mel_to_hz
from rocktop_ray.errors import AudioError, VoiceFormatError
from rocktop_ray.protocols import ENCODER_RATE, Array
from rocktop_ray.store.fetch import find

PACKAGE = "onnxruntime"
WEIGHTS = ("dnsmos", "dnsmos-p808")
_WINDOW = 144_160
"""Samples of one rating: 9.01 s."""
_FFT, _HOP, _BANDS = 321, 160, 120
_CALIBRATION = (  # of signal, background and overall: the networks' numbers to the scale of listeners
    (-0.08397278, 1.22083953, 0.0052439),
    (-0.13166888, 1.60915514, -0.39604546),
    (-0.06766283, 1.11546468, 0.04602535),
)


@dataclass(frozen=True)
class Dnsmos:
    """Predicted mean opinion scores, 1 to 5; higher is better."""

    signal: float
    """P.835 SIG: how undistorted the voice is."""
    background: float
    """P.835 BAK: how little noise there is."""
    overall: float
    """P.835 OVRL."""
    p808: float
    """P.808: overall quality, by the older network."""


class DnsmosRater:
    """Both networks, loaded once."""

    def __init__(self, p835: Path | None = None, p808: Path | None = None) -> None:
        """Loads the two ONNX files; None are the installed ones.

        Raises ModelMissingError, VoiceFormatError if a file is no such network.
        """
        self._p835 = _session(p835 or find(WEIGHTS[0]), ["N", _WINDOW])
        self._p808 = _session(p808 or find(WEIGHTS[1]), ["N", 900, _BANDS])
        self._filters = _filters()

    def rate(self, audio: Array) -> Dnsmos:
        """Mono ``[samples]`` at 16 kHz -> the mean over windows of 9.01 s, one per second; shorter takes are repeated.

        Samples over full scale are clipped. Raises AudioError if the take is empty or silent.
        """
        if audio.ndim != 1 or not np.any(audio):
            raise AudioError("an empty or silent take cannot be rated")
        audio = np.clip(audio, -1, 1).astype(np.float32)
        while len(audio) < _WINDOW:
            audio = np.concatenate([audio, audio])
        # As the authors count them: of whole seconds.
        count = int(len(audio) // ENCODER_RATE - _WINDOW / ENCODER_RATE) + 1
        scores = []
        for start in range(0, count * ENCODER_RATE, ENCODER_RATE):
            window = audio[start : start + _WINDOW]
            if len(window) < _WINDOW:
                break
            raw = self._p835.run(None, {"input_1": window[None]})[0][0]
            older = self._p808.run(None, {"input_1": self._mel(window[:-_HOP])[None]})[0][0, 0]
            scores.append([*(np.polyval(curve, x) for curve, x in zip(_CALIBRATION, raw, strict=True)), older])
        return Dnsmos(*(float(value) for value in np.mean(scores, axis=0)))

    def _mel(self, audio: Array) -> Array:
        """Log mel power ``[900, 120]``, 0 dB at its peak to -80 dB, moved to 1 and -1."""
        padded = np.pad(np.asarray(audio, np.float64), _FFT // 2)
        window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(_FFT) / _FFT)
        frames = np.lib.stride_tricks.sliding_window_view(padded, _FFT)[::_HOP] * window
        power = np.square(np.abs(np.fft.rfft(frames, axis=1))) @ self._filters.T
        level = 10 * np.log10(np.maximum(power, 1e-10))
        level = np.maximum(level - level.max(), -80.0)
        return ((level + 40) / 40).astype(np.float32)


def _session(path: Path, shape: list[Any]) -> Any:
    import onnxruntime
    from onnxruntime.capi import onnxruntime_pybind11_state as states

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    try:
        session = onnxruntime.InferenceSession(path.read_bytes(), options, providers=["CPUExecutionProvider"])
    except (states.InvalidProtobuf, states.InvalidGraph, states.Fail, states.InvalidArgument) as error:
        raise VoiceFormatError(f"{path}: not an ONNX network that onnxruntime can run") from error
    inputs = session.get_inputs()
    if len(inputs) != 1 or inputs[0].name != "input_1" or list(inputs[0].shape)[1:] != shape[1:]:
        found = [(entry.name, entry.shape) for entry in inputs]
        raise VoiceFormatError(f"{path}: expected one input input_1 {shape}, found {found}")
    return session


def _filters() -> npt.NDArray[np.float64]:
    """Slaney mel triangles ``[120, 161]`` of an odd transform, whose last bin lies below half the rate."""
    first, last = hz_to_mel([0.0, ENCODER_RATE / 2], htk=False)
    edges = mel_to_hz(np.linspace(first, last, _BANDS + 2), htk=False)
    bins = np.arange(_FFT // 2 + 1) * ENCODER_RATE / _FFT
    rise = (bins - edges[:-2, None]) / np.diff(edges)[:-1, None]
    fall = (edges[2:, None] - bins) / np.diff(edges)[1:, None]
    return np.asarray(np.maximum(0, np.minimum(rise, fall)) * (2 / (edges[2:] - edges[:-2]))[:, None])
