"""A converted take against its source: every metric that was chosen, each on its own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np

from rocktop_ray.audio.meter import Levels, measure
from rocktop_ray.audio.resample import resample
from rocktop_ray.errors import AudioError
from rocktop_ray.evaluate.choices import IN_TIME, METRICS, Align, Choices
from rocktop_ray.evaluate.instruments import Instruments, build_instruments
from rocktop_ray.evaluate.intelligibility import intelligibility
from rocktop_ray.evaluate.melody import F0Agreement, best_key, f0_agreement
from rocktop_ray.evaluate.perceptual import pesq_score
from rocktop_ray.evaluate.report import Naturalness, Report, Similarity, Spectra, Words
from rocktop_ray.evaluate.spectra import (
    align_takes,
    log_spectral_distance,
    mel_cepstral_distortion,
    multi_resolution_stft_distance,
)
from rocktop_ray.evaluate.warp import Path
from rocktop_ray.evaluate.waveform import si_sdr
from rocktop_ray.evaluate.words import Recogniser, word_errors
from rocktop_ray.protocols import ENCODER_RATE, TAKE_RATE, Array

_LOWEST_RATE = 8_000
T = TypeVar("T")


@dataclass(frozen=True)
class Measured:
    """A report, and the melodies that it was made from: F0 in Hz at 100/s, None where F0 was not chosen."""

    report: Report
    f0_source: Array | None = None
    f0_result: Array | None = None


def evaluate_pair(
    source: Array,
    result: Array,
    rate: int,
    *,
    metrics: Sequence[str] = METRICS,
    align: Align = "none",
    key: float | None = None,
    seconds: float = 120.0,
    target: Array | None = None,
    true_words: str | None = None,
    instruments: Instruments | None = None,
) -> Report:
    """Measures a converted take against its source.

    Args:
        source: mono ``[samples]`` at ``rate``, full scale 1.
        result: the converted take, mono at the same rate.
        rate: Hz.
        metrics: some of ``choices.METRICS``; ``choices.CHEAP`` needs no weights.
        align: ``dtw`` where the result is not in time with the source.
        key: semitones by which the result was meant to be higher; None to take the nearest whole number.
        seconds: how much of a take the spectral and perceptual metrics use, from its start.
        target: a clip of the voice that the result should sound like, mono at the same rate.
        true_words: what is sung, if known.
        instruments: what to measure with; None builds it for this call.

    A metric that is not installed, or that these takes are too short or too quiet for, is left out and named in
    ``Report.left_out``. Raises AudioError for what is no take (empty, not mono, NaN), SettingsError.
    """
    choices = Choices(tuple(metrics), align, key, seconds)
    return measure_pair(
        source, result, rate, choices, instruments or build_instruments(metrics), target=target, true_words=true_words
    ).report


def measure_pair(
    source: Array,
    result: Array,
    rate: int,
    choices: Choices,
    instruments: Instruments,
    *,
    target: Array | None = None,
    true_words: str | None = None,
) -> Measured:
    """As evaluate_pair, with the melodies."""
    for name, audio in (("source", source), ("result", result), ("target", target)):
        if audio is not None:
            check_take(audio, rate, name)
    return _Measuring(source, result, rate, choices, instruments, target, true_words).run()


def check_take(audio: Array, rate: int, name: str) -> None:
    """Raises AudioError unless ``audio`` is a mono take of numbers at 8 kHz or more."""
    if audio.ndim != 1:
        raise AudioError(f"the {name} must be mono [samples], not {audio.shape}; mix its channels down first")
    if not len(audio):
        raise AudioError(f"the {name} is an empty take; it cannot be evaluated")
    if rate < _LOWEST_RATE:
        raise AudioError(f"a rate of at least {_LOWEST_RATE} Hz is needed, not {rate}")
    if not np.isfinite(audio).all():
        raise AudioError(f"the {name} has samples that are not numbers (NaN or infinite)")


@dataclass
class _Measuring:
    """One evaluation under way."""

    source: Array
    result: Array
    rate: int
    choices: Choices
    tools: Instruments
    target: Array | None
    true_words: str | None
    left_out: dict[str, str] = field(default_factory=dict)

    def run(self) -> Measured:
        self.left_out |= {name: why for name, why in self.tools.missing.items() if self.wants(name)}
        low_source, low_result = (resample(audio, self.rate, ENCODER_RATE) for audio in (self.source, self.result))
        path = self.path()
        f0_source, f0_result, melody = self.melody(low_source, low_result, path)
        report = Report(
            seconds=len(self.source) / self.rate,
            length_drift=length_drift(self.source, self.result),
            source_levels=level_report(self.source, self.rate),
            result_levels=level_report(self.result, self.rate),
            f0=melody,
            similarity=self.attempt("speaker", self.tools.speaker, lambda: self.similarity(low_source, low_result)),
            spectra=self.spectra(path),
            words=self.words(low_source, low_result),
            align=self.choices.align,
            **self.perceived(low_source, low_result),  # type: ignore[arg-type]
            left_out=self.left_out,
        )
        return Measured(report, f0_source, f0_result)

    def wants(self, metric: str) -> bool:
        return metric in self.choices.metrics

    def attempt(self, metric: str, tool: object, work: Callable[[], T]) -> T | None:
        """``work()``; None if not wanted or not installed, or with its reason noted if these takes do not allow it."""
        if not self.wants(metric) or not tool:
            return None
        if self.choices.align == "dtw" and metric in IN_TIME:
            self.left_out[metric] = "compares moment with moment: not for takes that are aligned by time warping"
            return None
        try:
            return work()
        except AudioError as error:
            self.left_out[metric] = error.message
            return None

    def head(self, audio: Array, rate: int, other: Array | None = None) -> Array:
        """The part of a take that costly metrics use; as long as that of ``other``."""
        size = min(len(audio), len(audio if other is None else other), round(self.choices.seconds * rate))
        return audio[:size]

    def path(self) -> Path | None:
        if self.choices.align == "none":
            return None
        return align_takes(*self.framed())

    def framed(self) -> tuple[Array, Array, int]:
        """Both takes at a rate that has whole samples in 10 ms."""
        if self.rate % 100 == 0:
            return self.source, self.result, self.rate
        both = (resample(audio, self.rate, TAKE_RATE) for audio in (self.source, self.result))
        return next(both), next(both), TAKE_RATE

    def melody(
        self, source: Array, result: Array, path: Path | None
    ) -> tuple[Array | None, Array | None, F0Agreement | None]:
        if not self.wants("f0") or self.tools.pitch is None:
            return None, None, None
        first, second = self.tools.pitch.f0(source), self.tools.pitch.f0(result)
        a, b = first, second
        if path is not None:
            a, b = first[np.minimum(path[0], len(first) - 1)], second[np.minimum(path[1], len(second) - 1)]
        key = best_key(a, b) if self.choices.key is None else self.choices.key
        return first, second, f0_agreement(a, b, key)

    def similarity(self, source: Array, result: Array) -> Similarity:
        speaker = self.tools.speaker
        assert speaker is not None
        voices = [speaker.embed(source), speaker.embed(result)]
        if self.target is None:
            return Similarity(speaker.similarity(voices[1], voices[0]), None, None)
        voices.append(speaker.embed(resample(self.target, self.rate, ENCODER_RATE)))
        return Similarity(
            speaker.similarity(voices[1], voices[0]),
            speaker.similarity(voices[1], voices[2]),
            speaker.similarity(voices[0], voices[2]),
        )

    def spectra(self, path: Path | None) -> Spectra | None:
        a, b = self.head(self.source, self.rate, self.result), self.head(self.result, self.rate, self.source)
        whole = self.framed() if path is not None else (a, b, self.rate)
        found = Spectra(
            self.attempt("mcd", True, lambda: mel_cepstral_distortion(*whole, path=path)),
            self.attempt("lsd", True, lambda: log_spectral_distance(a, b)),
            self.attempt("stft", True, lambda: multi_resolution_stft_distance(a, b)),
        )
        return None if found == Spectra(None, None, None) else found

    def perceived(self, source: Array, result: Array) -> dict[str, object]:
        a, b = self.head(source, ENCODER_RATE, result), self.head(result, ENCODER_RATE, source)
        tools = self.tools

        def rated() -> Naturalness:
            assert tools.rater is not None
            heads = [self.head(audio, ENCODER_RATE) for audio in (source, result)]
            return Naturalness(tools.rater.rate(heads[0]), tools.rater.rate(heads[1]))

        def similar() -> float:
            assert tools.visqol is not None
            full = [
                resample(self.head(audio, self.rate, other), self.rate, TAKE_RATE)
                for audio, other in ((self.source, self.result), (self.result, self.source))
            ]
            return tools.visqol.score(full[0], full[1])

        return {
            "si_sdr_db": self.attempt(
                "si_sdr",
                True,
                lambda: si_sdr(
                    self.head(self.source, self.rate, self.result), self.head(self.result, self.rate, self.source)
                ),
            ),
            "intelligibility": self.attempt("stoi", tools.stoi, lambda: intelligibility(a, b)),
            "pesq": self.attempt("pesq", tools.pesq, lambda: pesq_score(a, b)),
            "visqol": self.attempt("visqol", tools.visqol, similar),
            "naturalness": self.attempt("dnsmos", tools.rater, rated),
        }

    def words(self, source: Array, result: Array) -> Words | None:
        recogniser = self.tools.recogniser
        if recogniser is None or not self.wants("words"):
            return None
        return _words(recogniser, source, result, self.true_words)


def length_drift(source: Array, result: Array) -> int:
    """Samples by which the result is longer than the source."""
    return len(result) - len(source)


def level_report(audio: Array, rate: int) -> Levels:
    """Peak, RMS, loudness, clipped samples and DC of ``[n]`` or ``[n, channels]``."""
    return measure([audio], rate)


def _words(recogniser: Recogniser, source: Array, result: Array, true_words: str | None) -> Words:
    heard_source, heard_result = recogniser.transcribe(source), recogniser.transcribe(result)
    return Words(
        recogniser.name,
        heard_source,
        heard_result,
        word_errors(true_words, heard_source) if true_words is not None else None,
        word_errors(true_words if true_words is not None else heard_source, heard_result),
    )
