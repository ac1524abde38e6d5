"""A take through the four stages, offline. The algorithm is RVC's; the length is the take's, to the sample."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor
from threading import Event

import numpy as np

from rocktop_ray.chunks import split_sections
from rocktop_ray.conversion import Conversion
from rocktop_ray.errors import AudioError, ModelMissingError, SettingsError, VoiceFormatError
from rocktop_ray.features.index import RetrievalIndex
from rocktop_ray.noise import SeededNoise
from rocktop_ray.progress import Clock, Converted, Progress
from rocktop_ray.protocols import TAKE_RATE, Array, ContentEncoder, Noise, PitchExtractor, VoiceModel
from rocktop_ray.settings import ConvertSettings

__all__ = ["Converted", "Converter", "Progress", "joined"]

SHORTEST = TAKE_RATE // 20
"""Samples at 48 kHz of the shortest take that can be converted (50 ms)."""


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
        executor: Executor | None = None,
    ) -> None:
        """Put the parts together.

        Args:
            extractor: may be None for a voice without F0.
            median_f0: the voice's own in Hz, for ``auto_key``.
            executor: threads on which pitch and content units are made at the same time, units also for chunks to
                come; the result is the same. Not the executor that conversions themselves run on. None makes one after
                the other in the calling thread.
        """
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
        self.median_f0, self.executor = median_f0, executor

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
        return joined(self.stream([take], settings, melody=melody, noise=noise, on_progress=on_progress, cancel=cancel))

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

        The yields joined are the converted take: one for each chunk (about 38 s), as soon as it is made.
        """
        settings = settings or ConvertSettings()
        self._check(settings)
        clock = Clock(on_progress, cancel)
        work = Conversion(self, settings, melody, noise or SeededNoise(settings.seed), clock)
        for section in split_sections(_checked(blocks)):
            yield from work.section(section)

    def _check(self, settings: ConvertSettings) -> None:
        if settings.speaker >= self.voice.spec.speakers:
            raise SettingsError(f"the voice has speakers 0 to {self.voice.spec.speakers - 1}, not {settings.speaker}")
        if settings.auto_key and self.median_f0 is None:
            raise SettingsError("auto_key needs a voice that knows its own median F0; give a key instead")


def joined(parts: Iterable[Converted]) -> Converted:
    """Stretches of a take, in order, as one."""
    parts = list(parts)
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
