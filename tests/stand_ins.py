"""Plain stages with a known effect, for tests of what is around them."""

from __future__ import annotations

import numpy as np

from rocktop_ray.chunks import FRAME
from rocktop_ray.convert import Converter
from rocktop_ray.protocols import Array, ContentSpec, Noise, VoiceSpec


class LevelEncoder:
    """One number per 20 ms: the mean of the samples there. Local, so chunks cannot change it."""

    spec = ContentSpec("level", 1)

    def encode(self, audio: Array) -> Array:
        count = (len(audio) - 400) // 320 + 1
        return audio[: count * 320].reshape(count, 320).mean(axis=1, keepdims=True).astype(np.float32)


class LevelPitch:
    name = "level"

    def f0(self, audio: Array) -> Array:
        frames = np.arange(len(audio) // FRAME + 1)
        return np.where(frames % 50 < 40, 200.0, 0.0).astype(np.float32)


class LoudPitch:
    """Pitch that depends on its own frame only."""

    name = "loudest"

    def f0(self, audio: Array) -> Array:
        padded = np.pad(np.abs(audio), (0, 160 - len(audio) % 160)).reshape(-1, 160)
        return np.where(padded.max(1) > 0.05, 200 + 100 * padded.max(1), 0).astype(np.float32)


class LevelVoice:
    """Repeats the units as a wave, plus the noise that it was given."""

    def __init__(self, rate: int = 48000, uses_f0: bool = True) -> None:
        self.spec = VoiceSpec(rate, rate // 100, ContentSpec("level", 1), uses_f0, 3, 1)

    def latent(
        self,
        units: Array,
        f0: Array | None,
        *,
        speaker: int = 0,
        temperature: float = 0.66666,
        noise: Noise | None = None,
        frame_offset: int = 0,
    ) -> Array:
        assert (f0 is not None) == self.spec.uses_f0
        drawn = 0 if noise is None else noise.normal("prior", frame_offset, len(units), 1) * temperature
        return (units + drawn).T

    def wave(
        self,
        latent: Array,
        f0: Array | None,
        *,
        speaker: int = 0,
        noise: Noise | None = None,
        frame_offset: int = 0,
        start: int = 0,
        stop: int | None = None,
    ) -> Array:
        return np.repeat(latent[0, start:stop], self.spec.hop)


def tone(seconds: float, rate: int = 48000, hz: float = 220.0) -> Array:
    return (0.5 * np.sin(2 * np.pi * hz * np.arange(round(seconds * rate)) / rate)).astype(np.float32)


def converter(rate: int = 48000) -> Converter:
    return Converter(LevelEncoder(), LevelPitch(), LevelVoice(rate))
