"""What the metrics measure with: loaded once, used for many takes. What is not installed is named, not an error."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib import metadata

from rocktop_ray.errors import ModelMissingError
from rocktop_ray.evaluate import naturalness, words
from rocktop_ray.evaluate.choices import METRICS
from rocktop_ray.evaluate.intelligibility import PACKAGE as STOI_PACKAGE
from rocktop_ray.evaluate.perceptual import PESQ_PACKAGE, VISQOL_MODULE, Visqol
from rocktop_ray.evaluate.speaker import SpeakerEncoder
from rocktop_ray.evaluate.words import Recogniser
from rocktop_ray.features.pitch.registry import build_pitch_extractor
from rocktop_ray.protocols import PitchExtractor
from rocktop_ray.store.fetch import command

_EXTRA = "not installed: pip install 'rocktop-ray[evaluate]'"
_BUILT = "not installed: pip install 'rocktop-ray[evaluate-all]' (builds it: needs a C and C++ compiler)"
_DISTRIBUTIONS = {STOI_PACKAGE: "pystoi", PESQ_PACKAGE: "pesq", VISQOL_MODULE: "visqol-python"}


@dataclass(frozen=True)
class Instruments:
    """None where a metric is not wanted or not possible."""

    pitch: PitchExtractor | None = None
    speaker: SpeakerEncoder | None = None
    recogniser: Recogniser | None = None
    rater: naturalness.DnsmosRater | None = None
    visqol: Visqol | None = None
    pesq: bool = False
    stoi: bool = False
    missing: dict[str, str] = field(default_factory=dict)
    """Metrics that were wanted but are not installed, with what to do."""

    def identity(self) -> dict[str, str]:
        """What takes part, by name and version: results of other instruments are not the same results."""
        found = {}
        if self.pitch is not None:
            found["pitch"] = self.pitch.name
        if self.recogniser is not None:
            found["words"] = self.recogniser.name
        if self.speaker is not None:
            found["speaker"] = "resemblyzer"
        if self.rater is not None:
            found["dnsmos"] = "speechmos 0.0.1.1"
        for name, wanted in ((STOI_PACKAGE, self.stoi), (PESQ_PACKAGE, self.pesq), (VISQOL_MODULE, self.visqol)):
            if wanted:
                found[name] = metadata.version(_DISTRIBUTIONS[name])
        return found


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


def build_instruments(
    metrics: Sequence[str] = METRICS, *, pitch: str | PitchExtractor | None = None, language: str | None = None
) -> Instruments:
    """What ``metrics`` need and this machine has; the rest is named in ``missing``. Nothing is downloaded.

    ``pitch``: a pitch extractor, or its name, in place of ``default_pitch_extractor``. ``language``: of the words.
    Raises SettingsError, and ModelMissingError for a pitch extractor that was named.
    """
    missing: dict[str, str] = {}

    def has(metric: str, module: str, advice: str) -> bool:
        if metric not in metrics:
            return False
        if importlib.util.find_spec(module) is None:
            missing[metric] = advice
            return False
        return True

    extractor = None
    if "f0" in metrics:
        extractor = build_pitch_extractor(pitch) if isinstance(pitch, str) else pitch or default_pitch_extractor()
    speaker = default_speaker_encoder() if "speaker" in metrics else None
    if "speaker" in metrics and speaker is None:
        missing["speaker"] = f"the weights are not installed: {command('resemblyzer')}"
    rater = None
    if has("dnsmos", naturalness.PACKAGE, _EXTRA):
        try:
            rater = naturalness.DnsmosRater()
        except ModelMissingError:
            missing["dnsmos"] = f"the weights are not installed: {command(' '.join(naturalness.WEIGHTS))}"
    recogniser = words.find_recogniser(language) if "words" in metrics else None
    if "words" in metrics and recogniser is None:
        missing["words"] = f"no recogniser: pip install pocketsphinx, or set {words.WHISPER_VARIABLE} (faster-whisper)"
    visqol = None
    if has("visqol", VISQOL_MODULE, _BUILT):
        try:
            visqol = Visqol()
        except ImportError:  # installed without the library that its model needs
            missing["visqol"] = _BUILT
    return Instruments(
        pitch=extractor,
        speaker=speaker,
        recogniser=recogniser,
        rater=rater,
        visqol=visqol,
        pesq=has("pesq", PESQ_PACKAGE, _BUILT),
        stoi=has("stoi", STOI_PACKAGE, _EXTRA),
        missing=missing,
    )
