"""The flat numbers of a report, each with its unit and its better direction: what sets, pages and trackers use."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from rocktop_ray.evaluate.report import Report

Better = Literal["lower", "higher", "zero", "neither"]
"""``zero``: the nearer to zero the better. ``neither``: a fact, not a score."""


@dataclass(frozen=True)
class Measure:
    """One number of a report. What each means is told in docs/evaluation.md."""

    name: str
    title: str
    unit: str
    better: Better
    digits: int
    """Digits after the point that are worth showing."""
    path: str
    """Attributes from the report to the number."""

    def read(self, report: Report) -> float | None:
        """The number, None where it was not measured."""
        value: object = report
        for name in self.path.split("."):
            value = None if value is None else getattr(value, name)
        return float(value) if isinstance(value, int | float) else None

    def text(self, value: float) -> str:
        """The number as it is shown."""
        return f"{value:.{self.digits}f}"


MEASURES = (
    Measure("f0_rmse_cents", "F0 RMSE", "cents", "lower", 1, "f0.rmse_cents"),
    Measure("f0_median_cents", "F0 median error", "cents", "lower", 1, "f0.median_cents"),
    Measure("f0_correlation", "F0 correlation", "", "higher", 4, "f0.correlation"),
    Measure("voicing_f1", "voicing F1", "", "higher", 3, "f0.voicing_f1"),
    Measure("key_semitones", "key", "semitones", "neither", 1, "f0.key"),
    Measure("speaker_to_target", "similarity to target", "", "higher", 3, "similarity.result_to_target"),
    Measure("speaker_to_source", "similarity to source", "", "neither", 3, "similarity.result_to_source"),
    Measure("mcd_db", "MCD", "dB", "lower", 2, "spectra.mel_cepstral_distortion_db"),
    Measure("lsd_db", "log spectral distance", "dB", "lower", 2, "spectra.log_spectral_distance_db"),
    Measure("mr_stft", "multi-resolution STFT", "", "lower", 3, "spectra.multi_resolution_stft"),
    Measure("si_sdr_db", "SI-SDR", "dB", "higher", 2, "si_sdr_db"),
    Measure("stoi", "STOI", "", "higher", 3, "intelligibility.stoi"),
    Measure("estoi", "ESTOI", "", "higher", 3, "intelligibility.estoi"),
    Measure("pesq", "PESQ", "MOS", "higher", 2, "pesq"),
    Measure("visqol", "ViSQOL", "MOS", "higher", 2, "visqol"),
    Measure("dnsmos_overall", "DNSMOS", "MOS", "higher", 2, "naturalness.result.overall"),
    Measure("dnsmos_signal", "DNSMOS signal", "MOS", "higher", 2, "naturalness.result.signal"),
    Measure("dnsmos_background", "DNSMOS background", "MOS", "higher", 2, "naturalness.result.background"),
    Measure("dnsmos_p808", "DNSMOS P.808", "MOS", "higher", 2, "naturalness.result.p808"),
    Measure("dnsmos_change", "DNSMOS, result less source", "MOS", "higher", 2, "naturalness.change"),
    Measure("word_error_rate", "word error rate", "", "lower", 2, "words.result.rate"),
    Measure("lufs", "loudness", "LUFS", "neither", 1, "result_levels.lufs"),
    Measure("loudness_change_lu", "loudness change", "LU", "zero", 1, "loudness_change"),
    Measure("peak_dbfs", "peak", "dBFS", "neither", 1, "result_levels.peak_dbfs"),
    Measure("clipped", "clipped samples", "", "lower", 0, "result_levels.clipped"),
    Measure("length_drift", "length drift", "samples", "zero", 0, "length_drift"),
    Measure("seconds", "length", "s", "neither", 2, "seconds"),
)
"""In the order of tables."""


def values_of(report: Report) -> dict[str, float]:
    """The measures that a report holds, by name; only finite numbers."""
    found = {measure.name: measure.read(report) for measure in MEASURES}
    return {name: value for name, value in found.items() if value is not None and math.isfinite(value)}
