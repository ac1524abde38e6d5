"""One conversion under way: sections of a take through the four stages, in order. The algorithm is RVC's."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from rocktop_ray.audio.highpass import highpass
from rocktop_ray.audio.resample import StreamResampler
from rocktop_ray.beside import Beside
from rocktop_ray.chunks import FRAME, PAD, Chunk, Section, plan_chunks
from rocktop_ray.dynamics import LoudnessMixer
from rocktop_ray.features import formant
from rocktop_ray.features.pitch import curves
from rocktop_ray.progress import Clock, Converted
from rocktop_ray.protocols import ENCODER_RATE, TAKE_RATE, Array, Noise
from rocktop_ray.settings import ConvertSettings

if TYPE_CHECKING:
    from rocktop_ray.convert import Converter

_PAD_FRAMES = PAD // FRAME


def blend_protected(units: Array, original: Array, f0: Array, protect: float) -> Array:
    """Units ``[frames, dim]`` after retrieval, with voiceless frames (F0 < 1 Hz) drawn back to the original.

    ``protect`` is the share that the retrieved units keep there.
    """
    share = np.where(f0 < 1, np.float32(protect), np.float32(1))[:, None]
    return units * share + original * (1 - share)


class Conversion:
    """Settings, draws and clock of one take. Sections go in in order."""

    def __init__(
        self, parts: Converter, settings: ConvertSettings, melody: Array | None, noise: Noise, clock: Clock
    ) -> None:
        self.parts, self.settings, self.melody, self.noise, self.clock = parts, settings, melody, noise, clock
        self.key: float | None = None
        rate = parts.voice.spec.sample_rate
        self.to_take = StreamResampler(rate, TAKE_RATE) if rate != TAKE_RATE else None
        self.written = 0

    def section(self, section: Section) -> Iterator[Converted]:
        """All stages over one section, chunk by chunk."""
        parts, settings, clock = self.parts, self.settings, self.clock
        spec = parts.voice.spec
        with clock.stage("prepare"):
            filtered, padded = _prepare(section, settings.formant)
            # Frames that cover the section's own samples at 48 kHz, the last one perhaps in part.
            frames = -(-section.take_samples // (TAKE_RATE // 100))
            chunks = plan_chunks(filtered, len(padded), frames)
        with Beside(parts.executor, clock) as beside:
            pitch = beside.task("pitch", partial(self._f0, section, padded)) if spec.uses_f0 else None
            content = beside.in_order(
                "content", (partial(parts.encoder.encode, padded[chunk.start : chunk.stop]) for chunk in chunks)
            )
            f0_source, f0 = (None, None) if pitch is None else pitch.result()
            mixer = LoudnessMixer(filtered, ENCODER_RATE, frames * spec.hop, spec.sample_rate, settings.rms_mix)
            for chunk, units in zip(chunks, content, strict=True):
                wave = self._chunk(section, chunk, units, f0)
                with clock.stage("finish"):
                    audio = self._finished(mixer, wave, section, last=chunk is chunks[-1])
                yield Converted(audio, _own(f0_source, chunk), _own(f0, chunk), self.key or 0.0, clock.take())

    def _f0(self, section: Section, padded: Array) -> tuple[Array, Array]:
        """Padded audio -> F0 of the take and F0 to sing, both ``[padded // 160]``."""
        extractor, settings = self.parts.extractor, self.settings
        assert extractor is not None
        source = extractor.f0(padded)[: len(padded) // FRAME]
        if self.melody is not None:
            source = source.copy()
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

    def _chunk(self, section: Section, chunk: Chunk, units: Array, f0: Array | None) -> Array:
        """The units of a chunk through retrieval, acoustic model and vocoder: ``[frames * hop]``."""
        parts, settings = self.parts, self.settings
        with self.clock.stage("retrieval"):
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
        with self.clock.stage("acoustic"):
            latent = parts.voice.latent(
                doubled,
                melody,
                speaker=settings.speaker,
                temperature=settings.temperature,
                noise=self.noise,
                frame_offset=offset,
            )
        with self.clock.stage("vocoder"):
            wave = parts.voice.wave(
                latent,
                melody,
                speaker=settings.speaker,
                noise=self.noise,
                frame_offset=offset,
                start=_PAD_FRAMES,
                stop=_PAD_FRAMES + chunk.frames,
            )
        self.clock.done += chunk.frames / 100
        return wave

    def _finished(self, mixer: LoudnessMixer, wave: Array, section: Section, *, last: bool) -> Array:
        """What is ready of the take: levelled, at 48 kHz, cut so that all of it has the take's length."""
        wave = mixer.push(wave)
        if last:
            wave = np.concatenate([wave, mixer.finish()])
        if self.to_take is not None:
            wave = self.to_take.push(wave)
            if section.last and last:
                wave = np.concatenate([wave, self.to_take.finish()])
        total = section.start * TAKE_RATE // ENCODER_RATE + section.take_samples
        audio = wave[: total - self.written]
        self.written += len(audio)
        if section.last and last and self.written < total:
            audio = np.pad(audio, (0, total - self.written))
        return audio


def _own(melody: Array | None, chunk: Chunk) -> Array:
    """The frames of a chunk, of those of the padded section."""
    if melody is None:
        return np.zeros(0, np.float32)
    start = _PAD_FRAMES + chunk.start // FRAME
    return melody[start : start + chunk.frames]


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
