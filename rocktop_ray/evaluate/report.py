"""All that was measured of one conversion: the numbers, as nested data and as rows of a table."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from rocktop_ray.audio.meter import Levels
from rocktop_ray.evaluate.intelligibility import Intelligibility
from rocktop_ray.evaluate.melody import F0Agreement
from rocktop_ray.evaluate.naturalness import Dnsmos
from rocktop_ray.evaluate.words import WordErrors


@dataclass(frozen=True)
class Similarity:
    """Cosines of speaker embeddings, 0 to 1. None without a target clip."""

    result_to_source: float
    result_to_target: float | None
    source_to_target: float | None


@dataclass(frozen=True)
class Spectra:
    """Distances from source to result. A changed voice is meant to be some way off. None where not asked for."""

    mel_cepstral_distortion_db: float | None
    log_spectral_distance_db: float | None
    multi_resolution_stft: float | None


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
class Naturalness:
    """Ratings of source and result, each for itself."""

    source: Dnsmos
    result: Dnsmos

    @property
    def change(self) -> float:
        """Overall rating of the result less that of the source."""
        return self.result.overall - self.source.overall


@dataclass(frozen=True)
class Report:
    """All measurements; None where a part was not asked for or not possible."""

    seconds: float
    """Of the source."""
    length_drift: int
    """Samples by which the result is longer than the source, at the rate compared at; 0 is right."""
    source_levels: Levels
    result_levels: Levels
    f0: F0Agreement | None = None
    similarity: Similarity | None = None
    spectra: Spectra | None = None
    si_sdr_db: float | None = None
    intelligibility: Intelligibility | None = None
    pesq: float | None = None
    visqol: float | None = None
    naturalness: Naturalness | None = None
    words: Words | None = None
    align: str = "none"
    left_out: dict[str, str] = field(default_factory=dict)
    """Metrics that were asked for and not measured, with the reason."""

    @property
    def loudness_change(self) -> float:
        """LU by which the result is louder than the source."""
        return self.result_levels.lufs - self.source_levels.lufs

    def as_dict(self) -> dict[str, Any]:
        """Nested plain data, ready for JSON."""
        return asdict(self)

    def rows(self) -> list[tuple[str, str]]:
        """Names and values as text, for a table."""
        rows = [("length", f"{self.seconds:.3f} s, drift {self.length_drift:+d} samples")]
        if self.align != "none":
            rows.append(("aligned", "F0 and cepstra by dynamic time warping"))
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
        return rows + self._distances() + self._words()

    def _distances(self) -> list[tuple[str, str]]:
        spectra = self.spectra or Spectra(None, None, None)
        numbers = [
            ("mel cepstral distortion", spectra.mel_cepstral_distortion_db, "{:.2f} dB"),
            ("log spectral distance", spectra.log_spectral_distance_db, "{:.2f} dB"),
            ("multi-resolution STFT", spectra.multi_resolution_stft, "{:.3f}"),
            ("SI-SDR", self.si_sdr_db, "{:.2f} dB"),
            ("STOI", self.intelligibility and self.intelligibility.stoi, "{:.3f}"),
            ("ESTOI", self.intelligibility and self.intelligibility.estoi, "{:.3f}"),
            ("PESQ (wide band)", self.pesq, "{:.2f}"),
            ("ViSQOL (48 kHz)", self.visqol, "{:.2f}"),
        ]
        rows = [(name, form.format(value)) for name, value, form in numbers if value is not None]
        if self.naturalness is not None:
            for name, rated in (("source", self.naturalness.source), ("result", self.naturalness.result)):
                parts = f"signal {rated.signal:.2f}, background {rated.background:.2f}, P.808 {rated.p808:.2f}"
                rows.append((f"DNSMOS of {name}", f"{rated.overall:.2f} ({parts})"))
        return rows

    def _words(self) -> list[tuple[str, str]]:
        if self.words is None:
            return []
        rows = [
            ("words of source", self.words.source_text or "(none)"),
            ("words of result", self.words.result_text or "(none)"),
        ]
        if self.words.source is not None:
            rows.append(("word error rate of source", f"{self.words.source.rate:.2f}"))
        return [*rows, ("word error rate of result", f"{self.words.result.rate:.2f}")]


def _text(value: float | None, form: str) -> str:
    return "not measurable" if value is None else form.format(value)
