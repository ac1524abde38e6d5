"""Where training voices come from: the hibari neural voice, flite's voices and the gcin syllable recordings."""

from __future__ import annotations

import subprocess
import tempfile
from pathlib import Path

import numpy as np
import numpy.typing as npt
import soundfile
import soxr

RATE = 24_000
SPEAKERS = ("heart", "slt", "rms", "awb", "gcin5", "gcin3")
"""Speaker 0 is the bundle's voice."""
BAND = {"heart": 11_600.0, "slt": 7_600.0, "rms": 7_600.0, "awb": 7_600.0, "gcin5": 11_600.0, "gcin3": 11_600.0}
"""Hz up to which a speaker's recordings say something."""

Floats = npt.NDArray[np.float32]


class Heart:
    """hibari-tts's own voice "heart" (24 kHz, Apache-2.0), with the F0 that it was made from."""

    def __init__(self) -> None:
        from hibari import Hibari, dsp

        self._tts, self._dsp = Hibari(), dsp

    def speak(self, text: str, *, speed: float, seed: int) -> tuple[Floats, npt.NDArray[np.float64]]:
        """Text -> audio at 24 kHz and F0 in Hz every 12.5 ms (0 = unvoiced)."""
        random = np.random.default_rng(seed)
        waves, pitches = [], []
        for phonemes in self._tts.phonemize(text):
            feed = {"ids": np.array([self._tts.ids(phonemes)], np.int64), "speed": np.array([speed], np.float32)}
            *parts, f0 = (output[0] for output in self._tts.sess.run(None, feed))
            waves.append(self._dsp.synth(*parts, f0, random))
            pitches.append(f0)
        return np.concatenate(waves).astype(np.float32), np.concatenate(pitches).astype(np.float64)


def flite(text: str, voice: str) -> Floats:
    """Text -> audio at 24 kHz by the ``flite`` program (Debian package flite; CMU Arctic voices, 16 kHz inside)."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "speech.wav"
        subprocess.run(["flite", "-voice", voice, "-t", text, "-o", str(path)], check=True, capture_output=True)
        audio, rate = soundfile.read(path, dtype="float32")
    return np.asarray(soxr.resample(audio, rate, RATE), np.float32)


def syllables(folder: Path, name: str, seed: int, seconds: float) -> list[Floats]:
    """Passages of about ``seconds`` joined from shuffled gcin-voice syllables ``<folder>/*/<name>.ogg``, at 24 kHz."""
    random = np.random.default_rng(seed)
    files = sorted(folder.glob(f"*/{name}.ogg"))
    passages: list[Floats] = []
    parts: list[Floats] = []
    for index in random.permutation(len(files)):
        audio, rate = soundfile.read(files[index], dtype="float32")
        audio = audio if audio.ndim == 1 else audio.mean(1)
        parts.append(np.asarray(soxr.resample(audio, rate, RATE), np.float32))
        parts.append(np.zeros(int(random.uniform(0.0, 0.08) * RATE), np.float32))
        if sum(map(len, parts)) > seconds * RATE:
            passages.append(np.concatenate(parts))
            parts = []
    return passages
