"""The peers' way to be live, with our modules: seconds of context through the networks again for every block.

As in the living peer's realtime code: the encoder over the whole context, the extractor over its end, retrieval for the
new frames, the acoustic model over all, the vocoder for the new frames and the crossfade. The crossfade itself and
the loudness mix, which cost next to nothing, are left out.
"""

from __future__ import annotations

import numpy as np

from rocktop_ray.audio.resample import StreamResampler
from rocktop_ray.convert import Converter
from rocktop_ray.noise import KeptNoise
from rocktop_ray.protocols import ENCODER_RATE, TAKE_RATE, Array
from rocktop_ray.settings import ConvertSettings

CONTEXT, JOIN = 250, 6
"""Frames of 10 ms: the context that the peer keeps by default, and its crossfade with the search for its place."""
_FRAME = ENCODER_RATE // 100
_PITCH_STEP = 32
"""Frames: the peer rounds what its RMVPE hears up to multiples of them."""


class Recompute:
    """One stream in blocks of ``block`` frames of 10 ms."""

    delay = JOIN * TAKE_RATE // 100
    """Samples at 48 kHz by which what comes out is late."""

    def __init__(self, parts: Converter, settings: ConvertSettings, block: int) -> None:
        self._parts, self._settings, self._block = parts, settings, block
        self._into = StreamResampler(TAKE_RATE, ENCODER_RATE)
        frames = CONTEXT + JOIN + block
        self._audio = np.zeros(frames * _FRAME, np.float32)
        self._f0 = np.zeros(frames, np.float32)

    def feed(self, block: Array) -> Array:
        """A block at 48 kHz -> the newest frames of the conversion, the crossfade's included."""
        parts, settings = self._parts, self._settings
        low = self._into.push(block)
        self._audio = np.concatenate([self._audio, low])[-len(self._audio) :]
        frames, fresh = len(self._f0), self._block + JOIN
        units = parts.encoder.encode(self._audio)
        if parts.index is not None and settings.index_rate > 0:
            new = -(-fresh // 2)
            units = np.concatenate([units[:-new], parts.index.search_blend(units[-new:], settings.index_rate)])
        doubled = np.repeat(units, 2, axis=0)
        doubled = np.concatenate([doubled, np.repeat(doubled[-1:], max(0, frames - len(doubled)), axis=0)])[:frames]
        f0 = None
        if parts.extractor is not None and parts.voice.spec.uses_f0:
            heard = min(frames, -(-(self._block + 5) // _PITCH_STEP) * _PITCH_STEP)
            found = parts.extractor.f0(self._audio[-heard * _FRAME :])[:heard]
            self._f0 = np.concatenate([self._f0[self._block :], np.zeros(self._block, np.float32)])
            self._f0[-heard + 3 :] = found[3:]
            f0 = self._f0
        noise = KeptNoise(settings.seed)
        latent = parts.voice.latent(doubled, f0, temperature=settings.temperature, noise=noise)
        return parts.voice.wave(latent, f0, noise=noise, start=frames - fresh, stop=frames)
