"""The take that is sent: sung, 48 kHz, mono, 16 bits, as long as asked for."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import soundfile

from rocktop_ray.audio.resample import StreamResampler

CLIP = Path(__file__).parents[2] / "assets" / "samples" / "vocadito_10.wav"


def write_take(path: Path, seconds: float) -> Path:
    """The sample of the repository, repeated or cut to the length."""
    audio, rate = soundfile.read(CLIP, dtype="float32")
    mono = audio if audio.ndim == 1 else audio.mean(1)
    if rate != 48_000:
        stream = StreamResampler(rate, 48_000)
        mono = np.concatenate([stream.push(mono), stream.finish()])
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, np.resize(mono, round(seconds * 48_000)), 48_000, subtype="PCM_16")
    return path
