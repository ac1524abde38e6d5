"""One page about a conversion: melody, voice, level, length, spectrum, words."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from rocktop_ray.audio.meter import Levels, measure
from rocktop_ray.audio.resample import resample
from rocktop_ray.errors import AudioError, ModelMissingError
from rocktop_ray.evaluate.melody import F0Agreement, best_key, f0_agreement
from rocktop_ray.evaluate.speaker import SpeakerEncoder
from rocktop_ray.evaluate.spectra import (
    log_spectral_distance,
    mel_cepstral_distortion,
    multi_resolution_stft_distance,
)
from rocktop_ray.evaluate.words import Recogniser, WordErrors, word_errors
from rocktop_ray.features.pitch.registry import build_pitch_extractor
from rocktop_ray.protocols import ENCODER_RATE, Array, PitchExtractor

_SPECTRA_SECONDS = 120  # their spectrograms lie in memory whole


@dataclass(frozen=True)
class Similarity:
    """Cosines of speaker embeddings, 0 to 1. None without a target clip."""

    result_to_source: float
    result_to_target: float | None
    source_to_target: float | None


@dataclass(frozen=True)
class Spectra:
    """Distances from source to result, in time with each other. A changed voice is meant to be some way off."""

    mel_cepstral_distortion_db: float
    log_spectral_distance_db: float
    multi_resolution_stft: float


@dataclass(frozen=True)
class Words:
    """What a recogniser understood."""

    recogniser: str
    source_text: str
    result_text: str
    source: WordErrors | None
    """Against the true words, where they are given."""
    result: WordErrors
    """Against the true words; without them against what was heard in the source."""


@dataclass(frozen=True)
class Report:
    """All measurements; None where a part was not asked for or not possible."""

    seconds: float
    """Of the source."""
    length_drift: int
    """Samples by which the result is longer than the source, at the rate compared at; 0 is right."""
    source_levels: Levels
    result_levels: Levels
    f0: F0Agreement | None
    similarity: Similarity | None
    spectra: Spectra | None
    words: Words | None

    def as_dict(self) -> dict[str, Any]:
        """Nested plain data, ready for JSON."""
        return asdict(self)

    def rows(self) -> list[tuple[str, str]]:
        """Names and values as text, for a table."""
        rows = [("length", f"{self.seconds:.3f} s, drift {self.length_drift:+d} samples")]
        if self.f0 is not None:
            rows += [
                ("F0 correlation", _text(self.f0.correlation, "{:.4f}")),
                ("F0 RMSE", _text(self.f0.rmse_cents, "{:.1f} cents") + f" at key {self.f0.key:+g}"),
                ("voicing F1", _text(self.f0.voicing_f1, "{:.3f}")),
            ]
        if self.similarity is not None:
            rows.append(("similarity to source", f"{self.similarity.result_to_source:.3f}"))
            if self.similarity.result_to_target is not None:
                between = f" (source to target {self.similarity.source_to_target:.3f})"
                rows.append(("similarity to target", f"{self.similarity.result_to_target:.3f}{between}"))
        for name, levels in (("source", self.source_levels), ("result", self.result_levels)):
            value = f"peak {levels.peak_dbfs:.1f} dBFS, RMS {levels.rms_dbfs:.1f} dBFS, {levels.lufs:.1f} LUFS"
            rows.append((f"level of {name}", value + (f", {levels.clipped} clipped" if levels.clipped else "")))
        if self.spectra is not None:
            rows += [
                ("mel cepstral distortion", f"{self.spectra.mel_cepstral_distortion_db:.2f} dB"),
                ("log spectral distance", f"{self.spectra.log_spectral_distance_db:.2f} dB"),
                ("multi-resolution STFT", f"{self.spectra.multi_resolution_stft:.3f}"),
            ]
        if self.words is not None:
            rows.append(("words of source", self.words.source_text or "(none)"))
            rows.append(("words of result", self.words.result_text or "(none)"))
            if self.words.source is not None:
                rows.append(("word error rate of source", f"{self.words.source.rate:.2f}"))
            rows.append(("word error rate of result", f"{self.words.result.rate:.2f}"))
        return rows


def length_drift(source: Array, result: Array) -> int:
    """Samples by which the result is longer than the source."""
    return len(result) - len(source)


def level_report(audio: Array, rate: int) -> Levels:
    """Peak, RMS, loudness, clipped samples and DC of ``[n]`` or ``[n, channels]``."""
    return measure([audio], rate)


def default_pitch_extractor() -> PitchExtractor:
    """FCPE where its weights are installed, else WORLD's harvest, which needs none."""
    try:
        return build_pitch_extractor("fcpe")
    except ModelMissingError:
        return build_pitch_extractor("harvest")


def default_speaker_encoder() -> SpeakerEncoder | None:
    """None where its weights are not installed."""
    try:
        return SpeakerEncoder()
    except ModelMissingError:
        return None


def evaluate_takes(
    source: Array,
    result: Array,
    rate: int,
    *,
    target: Array | None = None,
    key: float | None = None,
    pitch: PitchExtractor | None = None,
    speaker: SpeakerEncoder | None = None,
    recogniser: Recogniser | None = None,
    true_words: str | None = None,
    spectra: bool = True,
) -> Report:
    """Measures a converted take against its source.

    Args:
        source: mono ``[samples]`` at ``rate``.
        result: the converted take, mono at the same rate.
        rate: Hz.
        target: a clip of the voice that the result should sound like, mono at the same rate.
        key: semitones by which the result was meant to be higher; None to take the nearest whole number.
        pitch: None to leave the melody out.
        speaker: None to leave the voice out.
        recogniser: None to leave the words out.
        true_words: what is sung, if known.
        spectra: False to leave these distances out; they are taken of the first two minutes.

    Raises AudioError if source or result is empty, and what the parts raise.
    """
    if not len(source) or not len(result):
        raise AudioError("an empty take cannot be evaluated")
    low_source, low_result = resample(source, rate, ENCODER_RATE), resample(result, rate, ENCODER_RATE)
    melody = None
    if pitch is not None:
        f0_source, f0_result = pitch.f0(low_source), pitch.f0(low_result)
        melody = f0_agreement(f0_source, f0_result, best_key(f0_source, f0_result) if key is None else key)
    sounding = bool(np.any(source) and np.any(result))
    similarity = None
    if speaker is not None and sounding:
        voices = [speaker.embed(low_source), speaker.embed(low_result)]
        if target is not None:
            voices.append(speaker.embed(resample(target, rate, ENCODER_RATE)))
        similarity = Similarity(
            speaker.similarity(voices[1], voices[0]),
            speaker.similarity(voices[1], voices[2]) if target is not None else None,
            speaker.similarity(voices[0], voices[2]) if target is not None else None,
        )
    distances = None
    if spectra and sounding:
        size = min(len(source), len(result), _SPECTRA_SECONDS * rate)
        a, b = source[:size], result[:size]
        if np.any(a):
            distances = Spectra(
                mel_cepstral_distortion(a, b, rate),
                log_spectral_distance(a, b),
                multi_resolution_stft_distance(a, b),
            )
    words = _words(recogniser, low_source, low_result, true_words) if recogniser is not None else None
    return Report(
        seconds=len(source) / rate,
        length_drift=length_drift(source, result),
        source_levels=level_report(source, rate),
        result_levels=level_report(result, rate),
        f0=melody,
        similarity=similarity,
        spectra=distances,
        words=words,
    )


def _words(recogniser: Recogniser, source: Array, result: Array, true_words: str | None) -> Words:
    heard_source, heard_result = recogniser.transcribe(source), recogniser.transcribe(result)
    return Words(
        recogniser.name,
        heard_source,
        heard_result,
        word_errors(true_words, heard_source) if true_words is not None else None,
        word_errors(true_words if true_words is not None else heard_source, heard_result),
    )


def _text(value: float | None, form: str) -> str:
    return "not measurable" if value is None else form.format(value)
