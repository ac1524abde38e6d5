"""Content units and F0 of the slices of a part: one pass of the networks over all of them, with real context."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from actors.content import BuildEncoder, ContentActor
from actors.pitch import BuildExtractor, PitchActor
from rocktop_ray.audio.resample import resample
from rocktop_ray.errors import AudioError
from rocktop_ray.features.content.registry import build_content_encoder
from rocktop_ray.features.pitch.registry import build_pitch_extractor, weights_of
from rocktop_ray.protocols import ENCODER_RATE, Array
from rocktop_ray.store.digest import file_sha256
from rocktop_ray.store.fetch import find
from train_loops.dataset.config import NO_PITCH, DatasetConfig
from train_loops.dataset.slices import CONTEXT_SECONDS, Span, level_gain
from train_loops.dataset.takes import TakeWindow

UNIT = ENCODER_RATE // 50
"""Samples at 16 kHz of one content unit."""


@dataclass(frozen=True)
class Builders:
    """Where encoders and extractors come from; can be pickled."""

    encoder: BuildEncoder = build_content_encoder
    extractor: BuildExtractor = build_pitch_extractor


@dataclass(frozen=True)
class Identity:
    """What units and F0 were made with."""

    encoder: str
    dim: int
    encoder_weights: str
    """SHA-256 of the weights file; empty if it is not a file of the models folder."""
    pitch: str
    """``none`` without F0."""
    pitch_weights: str


@dataclass(frozen=True)
class SliceData:
    """A slice, ready for training."""

    start: int
    """First sample in the take, at the voice's rate."""
    wave: Array
    """``[frames * hop]``, within ±0.99 unless the level is ``none``."""
    units: Array
    """``[frames / 2, dim]``, 50/s."""
    f0: Array | None
    """``[frames]`` Hz, 0 = unvoiced, 100/s; None without a pitch extractor."""


class FeatureMaker:
    """The content encoder and the pitch extractor of one worker."""

    def __init__(self, config: DatasetConfig, device: str = "auto", builders: Builders | None = None) -> None:
        """Loads both. Raises SettingsError, ModelMissingError, VoiceFormatError."""
        builders = builders or Builders()
        self.config = config
        self._content = ContentActor(device, build=builders.encoder)
        spec = self._content.spec(config.encoder)
        self._pitch = PitchActor(device, build=builders.extractor)
        pitch = config.pitch
        if pitch != NO_PITCH:
            pitch = self._pitch.choose(None if pitch == "auto" else pitch)
        known = builders == Builders()
        self.identity = Identity(
            spec.name,
            spec.dim,
            _sha256(_encoder_file(spec.name)) if known else "",
            pitch,
            _sha256(_pitch_file(pitch)) if known else "",
        )

    def slices(self, window: TakeWindow, spans: list[Span]) -> list[SliceData]:
        """The slices of one part of a take. Raises AudioError."""
        config, rate = self.config, self.config.rate
        # The context of the part; its begin lies on the grid of units, as the spans do.
        context = round(CONTEXT_SECONDS * 50) * (rate // 50)
        start, stop = spans[0][0] - context, spans[-1][1] + context
        audio = window.read(start, stop)
        heard = resample(audio * np.float32(level_gain(audio, config.level)), rate, ENCODER_RATE)
        units = self._content.encode(config.encoder, heard)
        f0 = None if self.identity.pitch == NO_PITCH else self._pitch.f0(self.identity.pitch, heard)
        if not np.isfinite(units).all() or (f0 is not None and not np.isfinite(f0).all()):
            raise AudioError("the networks made values that are not numbers", stage="content")
        slices = []
        for begin, end in spans:
            first, count = (begin - start) // (rate // 50), (end - begin) // (rate // 50)
            wave = audio[begin - start : end - start]
            slices.append(
                SliceData(
                    begin,
                    wave * np.float32(level_gain(wave, config.level)),
                    _rows(units, first, count),
                    None if f0 is None else _rows(f0, 2 * first, 2 * count),
                )
            )
        return slices


def _rows(values: npt.NDArray[np.float32], first: int, count: int) -> Array:
    rows = values[first : first + count]
    if len(rows) < count:
        raise AudioError("the networks made fewer frames than the audio has", stage="content")
    return rows


def _encoder_file(name: str) -> Path:
    return find(f"{name}-encoder" if name.startswith("whisper-") else "hubert_base")


def _pitch_file(name: str) -> Path | None:
    weights = None if name == NO_PITCH else weights_of(name)
    return find(weights) if weights else None


def _sha256(path: Path | None) -> str:
    return file_sha256(path) if path else ""
