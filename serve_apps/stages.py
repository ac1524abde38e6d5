"""A converter whose stages are called through one place: computed in this process, or by replicas elsewhere.

The library's own ``Converter`` runs in both placements, once per take, over the stand-ins of this module. So both give
the same bytes, and the algorithm stands in one place.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any, Literal, Protocol, cast

from actors.acoustic import AcousticActor
from actors.content import ContentActor
from actors.pitch import PitchActor
from actors.turns import Turns
from actors.vocoder import VocoderActor
from actors.voice_cache import VoiceCache
from actors.voices import VoiceAbout
from rocktop_ray.convert import Converter
from rocktop_ray.features.index import RetrievalIndex
from rocktop_ray.protocols import ENCODER_RATE, FRAME_RATE, Array, ContentSpec, Noise, VoiceSpec
from serve_apps.conversions import Leased
from serve_apps.observe.meter import Meter, NoMeter
from serve_apps.orders import VoiceRef

Role = Literal["content", "pitch", "acoustic", "vocoder"]
"""Whom a call goes to: one of the four actors."""


class Stages(Protocol):
    """Where the methods of the four actors are called."""

    def hold(self, voice: VoiceRef) -> AbstractContextManager[float]:
        """Keep a voice ready where that is this process' business; seconds spent on loading it. Raises RocktopError."""
        ...

    def call(self, role: Role, method: str, *args: Any, **options: Any) -> Any:
        """Blocks until the actor's method has answered. Raises RocktopError."""
        ...

    def compute(self, stage: str, seconds: float, role: Role, method: str, *args: Any, **options: Any) -> Any:
        """The same for the work of ``stage`` on ``seconds`` of audio: it waits for its turn, and is measured."""
        ...


class LocalStages:
    """All four in this process."""

    def __init__(
        self,
        content: ContentActor,
        pitch: PitchActor,
        voices: VoiceCache[VoiceRef],
        turns: Turns,
        meter: Meter | None = None,
    ) -> None:
        self._actors: dict[Role, Any] = {
            "content": content,
            "pitch": pitch,
            "acoustic": AcousticActor(voices),
            "vocoder": VocoderActor(voices),
        }
        self._voices, self._turns = voices, turns
        self._meter = meter or NoMeter()

    @contextmanager
    def hold(self, voice: VoiceRef) -> Iterator[float]:
        """See ``Stages``: the voice is not freed between two stages of an order."""
        with self._voices.lease(voice) as held:
            yield held.loaded_seconds

    def call(self, role: Role, method: str, *args: Any, **options: Any) -> Any:
        """See ``Stages``."""
        return getattr(self._actors[role], method)(*args, **options)

    def compute(self, stage: str, seconds: float, role: Role, method: str, *args: Any, **options: Any) -> Any:
        """See ``Stages``."""
        result, spent = self._turns.take(lambda: self.call(role, method, *args, **options))
        self._meter.stage(stage, spent, seconds)
        return result


class StagedConverters:
    """Converters over ``Stages``: see ``conversions.Converters``."""

    def __init__(self, stages: Stages, make: Callable[..., Converter] = Converter) -> None:
        """make: as ``Converter``'s constructor."""
        self._stages, self._make = stages, make

    @contextmanager
    def lease(self, voice: VoiceRef, pitch: str | None) -> Iterator[Leased]:
        """See ``conversions.Converters``."""
        call = self._stages.call
        with self._stages.hold(voice) as held:
            about, seconds = cast("tuple[VoiceAbout, float]", call("acoustic", "about", voice))
            spec = about.spec
            encoder = _Encoder(self._stages, call("content", "spec", spec.content.name))
            extractor = None
            if spec.uses_f0:
                extractor = _Extractor(self._stages, call("pitch", "choose", pitch or about.default_extractor))
            index = None if about.index_dim is None else _Index(self._stages, voice, about.index_dim)
            model = _Voice(self._stages, voice, spec)
            facts = {
                "version": about.version,
                "family": about.family,
                "sample_rate": spec.sample_rate,
                "uses_f0": spec.uses_f0,
                "loaded": held + seconds,
            }
            retrieval = cast("RetrievalIndex | None", index)
            yield Leased(self._make(encoder, extractor, model, retrieval, median_f0=about.median_f0), facts)


@dataclass(frozen=True)
class _Encoder:
    """A content encoder elsewhere."""

    stages: Stages
    spec: ContentSpec

    def encode(self, audio: Array) -> Array:
        units: Array = self.stages.compute(
            "content", len(audio) / ENCODER_RATE, "content", "encode", self.spec.name, audio
        )
        return units


@dataclass(frozen=True)
class _Extractor:
    """A pitch extractor elsewhere."""

    stages: Stages
    name: str

    def f0(self, audio: Array) -> Array:
        f0: Array = self.stages.compute("pitch", len(audio) / ENCODER_RATE, "pitch", "f0", self.name, audio)
        return f0 if f0.flags.writeable else f0.copy()  # the caller may write a melody of its own into it


@dataclass(frozen=True)
class _Index:
    """A retrieval index elsewhere."""

    stages: Stages
    ref: VoiceRef
    dim: int

    def search_blend(self, units: Array, rate: float) -> Array:
        seconds = 2 * len(units) / FRAME_RATE
        blended: Array = self.stages.compute("retrieval", seconds, "acoustic", "blend", self.ref, units, rate)
        return blended


@dataclass(frozen=True)
class _Voice:
    """Acoustic model and vocoder elsewhere. Noise travels as what draws it: a seed."""

    stages: Stages
    ref: VoiceRef
    spec: VoiceSpec

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
        latent: Array = self.stages.compute(
            "acoustic",
            len(units) / FRAME_RATE,
            "acoustic",
            "latent",
            self.ref,
            units,
            f0,
            speaker=speaker,
            temperature=temperature,
            noise=noise,
            frame_offset=frame_offset,
        )
        return latent

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
        stop = latent.shape[1] if stop is None else stop
        wave: Array = self.stages.compute(
            "vocoder",
            (stop - start) / FRAME_RATE,
            "vocoder",
            "wave",
            self.ref,
            latent,
            f0,
            speaker=speaker,
            noise=noise,
            frame_offset=frame_offset,
            start=start,
            stop=stop,
        )
        return wave
