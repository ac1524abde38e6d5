"""A take through the four stages, offline. The algorithm is RVC's; the length is the take's, to the sample."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from threading import Event

import numpy as np
import numpy.typing as npt

from rocktop_ray.audio.highpass import highpass
from rocktop_ray.audio.resample import StreamResampler
from rocktop_ray.chunks import FRAME, PAD, Chunk, Section, plan_chunks, split_sections
from rocktop_ray.dynamics import mix_loudness
from rocktop_ray.errors import AudioError, CancelledError, ModelMissingError, SettingsError, VoiceFormatError
from rocktop_ray.features import formant
from rocktop_ray.features.index import RetrievalIndex
from rocktop_ray.features.pitch import curves
from rocktop_ray.noise import SeededNoise
from rocktop_ray.protocols import ENCODER_RATE, TAKE_RATE, Array, ContentEncoder, Noise, PitchExtractor, VoiceModel
from rocktop_ray.settings import ConvertSettings

SHORTEST = TAKE_RATE // 20
"""Samples at 48 kHz of the shortest take that can be converted (50 ms)."""

_PAD_FRAMES = PAD // FRAME


@dataclass(frozen=True)
class Progress:
    """How far a conversion is: seconds of the take that are done, and the stage that just ended."""

    seconds_done: float
    stage: str


@dataclass(frozen=True)
class Converted:
    """A stretch of the converted take.

    Attributes:
        audio: ``[samples]`` at 48 kHz.
        f0_source: F0 of the take in Hz, 100/s, 0 = unvoiced; empty for voices without F0.
        f0: F0 that the voice was asked to sing.
        key: semitones between the two.
        seconds: time spent per stage.
    """

    audio: Array
    f0_source: Array
    f0: Array
    key: float
    seconds: dict[str, float] = field(default_factory=dict)


class Converter:
    """One voice with its content encoder, pitch extractor and index. Holds no state between takes.

    Raises VoiceFormatError at once if the parts do not fit each other.
    """

    def __init__(
        self,
        encoder: ContentEncoder,
        extractor: PitchExtractor | None,
        voice: VoiceModel,
        index: RetrievalIndex | None = None,
        *,
        median_f0: float | None = None,
    ) -> None:
        """``extractor`` may be None for a voice without F0; ``median_f0`` in Hz is the voice's, for ``auto_key``."""
        spec = voice.spec
        if encoder.spec.dim != spec.content.dim:
            raise VoiceFormatError(
                f"the voice was trained on {spec.content.name} units of width {spec.content.dim}, "
                f"the content encoder {encoder.spec.name} makes {encoder.spec.dim}"
            )
        if index is not None and index.dim != spec.content.dim:
            raise VoiceFormatError(
                f"the voice needs an index of width {spec.content.dim}, this one has {index.dim}", stage="retrieval"
            )
        if spec.uses_f0 and extractor is None:
            raise ModelMissingError("this voice sings a melody: give a pitch extractor", stage="pitch")
        self.encoder, self.extractor, self.voice, self.index = encoder, extractor, voice, index
        self.median_f0 = median_f0

    def convert(
        self,
        take: Array,
        settings: ConvertSettings | None = None,
        *,
        melody: Array | None = None,
        noise: Noise | None = None,
        on_progress: Callable[[Progress], None] | None = None,
        cancel: Event | None = None,
    ) -> Converted:
        """Mono ``[samples]`` at 48 kHz -> a converted take of the same length.

        Args:
            melody: F0 of the take from elsewhere, Hz at 100/s from its start; it replaces as much as it covers.
            noise: random draws; None takes them from ``settings.seed``.
            on_progress: called after every stage.
            cancel: when set, CancelledError is raised before the next stage.

        Raises:
            AudioError: empty, shorter than 50 ms, not finite, not mono.
            SettingsError: a setting that this voice cannot follow.
        """
        parts = list(self.stream([take], settings, melody=melody, noise=noise, on_progress=on_progress, cancel=cancel))
        seconds: dict[str, float] = {}
        for part in parts:
            for stage, spent in part.seconds.items():
                seconds[stage] = seconds.get(stage, 0.0) + spent
        return Converted(
            np.concatenate([part.audio for part in parts]),
            np.concatenate([part.f0_source for part in parts]),
            np.concatenate([part.f0 for part in parts]),
            parts[0].key,
            seconds,
        )

    def stream(
        self,
        blocks: Iterable[Array],
        settings: ConvertSettings | None = None,
        *,
        melody: Array | None = None,
        noise: Noise | None = None,
        on_progress: Callable[[Progress], None] | None = None,
        cancel: Event | None = None,
    ) -> Iterator[Converted]:
        """The same for a take of any length in blocks ``[samples]`` of any sizes, in bounded memory.

        Yields at least once per section (5 minutes); the yields' audio joined is the converted take.
        """
        settings = settings or ConvertSettings()
        self._check(settings)
        work = Conversion(self, settings, melody, noise or SeededNoise(settings.seed), on_progress, cancel)
        for section in split_sections(_checked(blocks)):
            yield work.section(section)

    def _check(self, settings: ConvertSettings) -> None:
        if settings.speaker >= self.voice.spec.speakers:
            raise SettingsError(f"the voice has speakers 0 to {self.voice.spec.speakers - 1}, not {settings.speaker}")
        if settings.auto_key and self.median_f0 is None:
            raise SettingsError("auto_key needs a voice that knows its own median F0; give a key instead")


def blend_protected(units: Array, original: Array, f0: Array, protect: float) -> Array:
    """Units ``[frames, dim]`` after retrieval, with voiceless frames (F0 < 1 Hz) drawn back to the original.

    ``protect`` is the share that the retrieved units keep there.
    """
    share = np.where(f0 < 1, np.float32(protect), np.float32(1))[:, None]
    return units * share + original * (1 - share)


class Conversion:
    """One conversion under way: settings, draws, clock. Sections go in in order."""

    def __init__(
        self,
        parts: Converter,
        settings: ConvertSettings,
        melody: Array | None,
        noise: Noise,
        on_progress: Callable[[Progress], None] | None = None,
        cancel: Event | None = None,
    ) -> None:
        self.parts, self.settings, self.melody, self.noise = parts, settings, melody, noise
        self.on_progress, self.cancel = on_progress, cancel
        self.seconds: dict[str, float] = {}
        self.done = 0.0
        self.key: float | None = None
        rate = parts.voice.spec.sample_rate
        self.to_take = StreamResampler(rate, TAKE_RATE) if rate != TAKE_RATE else None
        self.written = 0

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Count the time of a stage, tell progress, obey cancellation."""
        if self.cancel is not None and self.cancel.is_set():
            raise CancelledError("the conversion was cancelled")
        began = time.perf_counter()
        yield
        self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - began
        if self.on_progress is not None:
            self.on_progress(Progress(self.done, name))

    def section(self, section: Section) -> Converted:
        """All stages over one section."""
        self.seconds = {}
        spec, settings = self.parts.voice.spec, self.settings
        with self.stage("prepare"):
            filtered, padded = _prepare(section, settings.formant)
        # Frames that cover the section's own samples at 48 kHz, the last one perhaps in part.
        frames = -(-section.take_samples // (TAKE_RATE // 100))
        f0_source, f0 = self._f0(section, padded) if spec.uses_f0 else (None, None)
        waves = [self._chunk(section, chunk, padded, f0) for chunk in plan_chunks(filtered, len(padded), frames)]
        with self.stage("finish"):
            wave = np.concatenate(waves)
            wave = mix_loudness(filtered, ENCODER_RATE, wave, spec.sample_rate, settings.rms_mix)
            audio = self._to_take(wave, section)
        own = slice(_PAD_FRAMES, _PAD_FRAMES + frames)
        none = np.zeros(0, np.float32)
        return Converted(
            audio,
            none if f0_source is None else f0_source[own],
            none if f0 is None else f0[own],
            self.key or 0.0,
            dict(self.seconds),
        )

    def _f0(self, section: Section, padded: Array) -> tuple[Array, Array]:
        """Padded audio -> F0 of the take and F0 to sing, both ``[padded // 160]``."""
        extractor, settings = self.parts.extractor, self.settings
        assert extractor is not None
        with self.stage("pitch"):
            source = extractor.f0(padded)[: len(padded) // FRAME]
            if self.melody is not None:
                own = self.melody[section.start // FRAME :][: len(source) - _PAD_FRAMES]
                source[_PAD_FRAMES : _PAD_FRAMES + len(own)] = own
            f0 = curves.median_filter(source, settings.median_radius) if settings.median_radius else source
            if self.key is None:
                self.key = settings.key
                if settings.auto_key and self.parts.median_f0 is not None:
                    self.key += curves.suggest_key(f0, self.parts.median_f0)
            if settings.unvoiced == "interpolate":
                f0 = curves.interpolate_unvoiced(f0)
            f0 = curves.shift(f0, self.key)
            if settings.autotune:
                f0 = curves.autotune(f0, scale=settings.scale, root=settings.root, strength=settings.autotune)
        return source, f0

    def _chunk(self, section: Section, chunk: Chunk, padded: Array, f0: Array | None) -> Array:
        """One chunk through content encoder, retrieval, acoustic model and vocoder: ``[frames * hop]``."""
        parts, settings = self.parts, self.settings
        with self.stage("content"):
            units = parts.encoder.encode(padded[chunk.start : chunk.stop])
        with self.stage("retrieval"):
            blended = units
            if parts.index is not None and settings.index_rate > 0:
                blended = parts.index.search_blend(units, settings.index_rate)
            # 50 units a second become 100 frames a second; the encoder may come out a frame or two short of the audio.
            count = min((chunk.stop - chunk.start) // FRAME, 2 * len(units))
            doubled = np.repeat(blended, 2, axis=0)[:count]
            melody = None if f0 is None else f0[chunk.start // FRAME :][:count]
            if melody is not None and blended is not units and settings.protect < 0.5:
                doubled = blend_protected(doubled, np.repeat(units, 2, axis=0)[:count], melody, settings.protect)
        offset = (section.start + chunk.start) // FRAME
        with self.stage("acoustic"):
            latent = parts.voice.latent(
                doubled,
                melody,
                speaker=settings.speaker,
                temperature=settings.temperature,
                noise=self.noise,
                frame_offset=offset,
            )
        with self.stage("vocoder"):
            wave = parts.voice.wave(
                latent,
                melody,
                speaker=settings.speaker,
                noise=self.noise,
                frame_offset=offset,
                start=_PAD_FRAMES,
                stop=_PAD_FRAMES + chunk.frames,
            )
        self.done += chunk.frames / 100
        return wave

    def _to_take(self, wave: Array, section: Section) -> Array:
        """The voice's wave at 48 kHz, cut so that all sections together have the take's length."""
        if self.to_take is not None:
            wave = self.to_take.push(wave)
            if section.last:
                wave = np.concatenate([wave, self.to_take.finish()])
        total = section.start * TAKE_RATE // ENCODER_RATE + section.take_samples
        audio = wave[: total - self.written]
        self.written += len(audio)
        if section.last and self.written < total:
            audio = np.pad(audio, (0, total - self.written))
        return audio


def _prepare(section: Section, formant_shift: float) -> tuple[npt.NDArray[np.float64], Array]:
    """Filtered own audio ``[samples]`` and the same padded by one second on both sides, float32.

    Padding is the neighbouring audio where there is some, else the reflection that the reference uses.
    """
    audio = section.audio
    if formant_shift:
        audio = formant.shift(audio, ENCODER_RATE, formant_shift)
    filtered = highpass(audio)
    left, right = min(section.before, PAD), min(section.after, PAD)
    context = filtered[section.before - left : len(filtered) - section.after + right]
    padded = np.pad(context, (PAD - left, PAD - right), mode="reflect")
    own = filtered[section.before : len(filtered) - section.after]
    return own, padded.astype(np.float32)


def _checked(blocks: Iterable[Array]) -> Iterator[Array]:
    """The blocks, refused when they are not finite mono audio, or too short in all."""
    samples = 0
    for block in blocks:
        if block.ndim != 1:
            raise AudioError(f"a take is mono [samples], not of shape {list(block.shape)}; mix it down first")
        if not np.isfinite(block).all():
            at = samples + int(np.argmin(np.isfinite(block)))
            raise AudioError(f"the take holds a value that is not a number at {at / TAKE_RATE:.3f} s")
        samples += len(block)
        yield block.astype(np.float32, copy=False)
    if samples < SHORTEST:
        raise AudioError(f"the take lasts {samples / TAKE_RATE:.3f} s; the shortest that can be converted is 0.050 s")
