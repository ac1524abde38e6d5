"""Whose voice is it? Speaker embeddings by Resemblyzer's weights (Apache-2.0, Resemble AI 2019).

On singing the numbers need care: different singers of one song reach 0.6 to 0.9, halves of one take 0.76 to 0.96.
Compare a result with source and target rather than with a threshold. Resemblyzer can cut silence by WebRTC's voice
detector first; this is left out, because sustained notes do not pass for speech.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from rocktop_ray.audio.level import from_db, rms
from rocktop_ray.audio.mel import mel_filters
from rocktop_ray.errors import AudioError, VoiceFormatError
from rocktop_ray.models.speaker import GE2E
from rocktop_ray.protocols import ENCODER_RATE, Array
from rocktop_ray.store.fetch import find
from rocktop_ray.voices.safe_load import load_pickle_tensors

_FFT, _HOP, _MELS = 400, 160, 40  # 25 ms, 10 ms
_PARTIAL = 160
"""Frames of one partial utterance: 1.6 s."""
_STEP = round(ENCODER_RATE / 1.3 / _HOP)
"""Frames between partials: 1.3 per second, about half overlapped."""
_COVERAGE = 0.75
"""A last partial with less audio than this is dropped."""
_BATCH = 64
"""Partials at a time: an hour has thousands."""
_QUIETEST = from_db(-30.0)
"""RMS that quieter takes are raised to, as in training."""


class SpeakerEncoder:
    """Takes to points on a sphere; the nearer two points, the more alike the voices."""

    dim = 256

    def __init__(self, path: str | Path | None = None) -> None:
        """Loads ``pretrained.pt`` of Resemblyzer 0.1.4; None is the installed ``resemblyzer``.

        Raises ModelMissingError, VoiceFormatError if the file does not fit, UnsafeFileError.
        """
        path = find("resemblyzer") if path is None else Path(path)
        state = load_pickle_tensors(path).get("model_state")
        self._net = GE2E().eval()
        wanted = self._net.state_dict()
        if not isinstance(state, dict):
            raise VoiceFormatError(f"{path}: expected the speaker encoder of Resemblyzer: 'model_state' is missing")
        for name, tensor in wanted.items():
            found = state.get(name)
            if not isinstance(found, torch.Tensor) or found.shape != tensor.shape:
                what = tuple(found.shape) if isinstance(found, torch.Tensor) else "nothing"
                raise VoiceFormatError(f"{path}: expected {name} {tuple(tensor.shape)}, found {what}")
        self._net.load_state_dict({name: state[name].float() for name in wanted})
        self._filters = mel_filters(ENCODER_RATE, _FFT, _MELS, 0.0, ENCODER_RATE / 2, htk=False)

    def embed(self, audio: Array) -> Array:
        """Audio ``[samples]`` at 16 kHz -> ``[256]`` of length 1. Raises AudioError if it is empty or silent."""
        level = rms(audio)
        if level == 0.0:
            raise AudioError("a silent recording has no voice to compare")
        loud = audio * np.float32(max(1.0, _QUIETEST / level))
        starts = partial_starts(len(loud))
        needed = (starts[-1] + _PARTIAL) * _HOP
        padded = np.pad(loud, (_FFT // 2, max(0, needed - len(loud)) + _FFT // 2)).astype(np.float32)
        total = np.zeros(self.dim)
        with torch.inference_mode():
            for first in range(0, len(starts), _BATCH):
                group = starts[first : first + _BATCH]
                span = padded[group[0] * _HOP : (group[-1] + _PARTIAL - 1) * _HOP + _FFT]
                mel = self._mel(span)
                batch = torch.stack([mel[start - group[0] :][:_PARTIAL] for start in group])
                total += self._net(batch).double().sum(dim=0).numpy()
        return (total / max(float(np.linalg.norm(total)), 1e-12)).astype(np.float32)

    def similarity(self, a: Array, b: Array) -> float:
        """Cosine of two embeddings, 0 to 1."""
        return float(np.dot(a, b))

    def _mel(self, audio: Array) -> torch.Tensor:
        """Mel power ``[frames, 40]``; not its logarithm."""
        spectrum = torch.stft(
            torch.from_numpy(audio),
            _FFT,
            _HOP,
            window=torch.hann_window(_FFT),
            center=False,
            return_complex=True,
        )
        return (torch.from_numpy(self._filters) @ spectrum.abs().square()).T


def partial_starts(samples: int) -> list[int]:
    """First frames of the partials of a take: they cover it, the last one if enough of it holds audio."""
    frames = -(-(samples + 1) // _HOP)
    starts = list(range(0, max(1, frames - _PARTIAL + _STEP + 1), _STEP))
    if len(starts) > 1 and (samples - starts[-1] * _HOP) / (_PARTIAL * _HOP) < _COVERAGE:
        starts.pop()
    return starts
