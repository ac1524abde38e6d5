"""The roles of the pipeline, as protocols: what a stage takes and gives, in shapes, rates and units.

Arrays that cross a stage border are numpy float32 on the host. Classes keep their torch device to themselves. Anything
that has the right methods can take a role; the registries in ``features.content``, ``features.pitch`` and ``voices``
build the ones that ship.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float32]

TAKE_RATE = 48_000
"""Hz of a take inside the system."""
ENCODER_RATE = 16_000
"""Sample rate in Hz of the audio that content encoders and pitch extractors take."""
FRAME_RATE = 100
"""F0 and synthesizer frames per second. One frame is 160 samples at 16 kHz."""


@dataclass(frozen=True)
class ContentSpec:
    """What a content encoder makes: a voice can only sing units of the spec that it was trained on."""

    name: str
    """Stable name, e.g. ``hubert-v2``, ``hubert-v1``, ``whisper-base``."""
    dim: int
    """Width of one unit."""


@runtime_checkable
class ContentEncoder(Protocol):
    """What is sung, without who sings."""

    @property
    def spec(self) -> ContentSpec:
        """Name and width of the units."""
        ...

    def encode(self, audio: Array) -> Array:
        """Audio ``[samples]`` at 16 kHz -> units ``[frames, dim]`` at 50/s. Raises AudioError below one frame."""
        ...


@runtime_checkable
class PitchExtractor(Protocol):
    """The melody."""

    @property
    def name(self) -> str:
        """As in ``features.pitch.registry``."""
        ...

    def f0(self, audio: Array) -> Array:
        """Audio ``[samples]`` at 16 kHz -> F0 ``[samples // 160 + 1]`` in Hz, 0 = unvoiced; frame i is at i * 10 ms."""
        ...


@runtime_checkable
class Noise(Protocol):
    """Where random draws come from. Addressed by position, so that chunks of a take draw what the whole would."""

    def normal(self, name: str, start: int, count: int, width: int) -> Array:
        """Rows ``start .. start + count`` of the standard normal table ``name``: ``[count, width]``; start >= 0."""
        ...


@dataclass(frozen=True)
class VoiceSpec:
    """The facts of a voice that the pipeline needs."""

    sample_rate: int
    """Hz of the wave that the vocoder makes."""
    hop: int
    """Samples per frame: sample_rate // 100."""
    content: ContentSpec
    uses_f0: bool
    speakers: int
    latent_dim: int
    """Width of the acoustic model's output, and of its prior noise."""


@runtime_checkable
class AcousticModel(Protocol):
    """Content units and melody to latent frames. RVC: prior encoder + flow."""

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
        """Units ``[frames, dim]`` at 100/s, F0 ``[frames]`` in Hz -> latent ``[latent_dim, frames]``.

        ``noise`` None means no noise. Noise rows are taken from the table "prior" at ``frame_offset``.
        """
        ...


@runtime_checkable
class Vocoder(Protocol):
    """Latent frames to wave. RVC: the NSF-HiFiGAN decoder."""

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
        """Latent ``[latent_dim, frames]``, F0 ``[frames]`` in Hz -> wave ``[(stop - start) * hop]``.

        Only frames ``start .. stop`` are rendered, equal to that part of the whole: frames outside serve as context.
        Noise rows (one per sample) are taken from the table "source" at ``frame_offset * hop``.
        """
        ...


class VoiceModel(AcousticModel, Vocoder, Protocol):
    """A voice's synthesizer: both halves, and what they are."""

    @property
    def spec(self) -> VoiceSpec:
        """The facts that the pipeline needs."""
        ...
