"""What ``make demo`` does: convert, measure, draw, write down."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import rocktop_ray
from rocktop_ray.audio.decode import read_take
from rocktop_ray.audio.resample import resample
from rocktop_ray.convert import Progress
from rocktop_ray.engine import Engine, build_engine
from rocktop_ray.errors import storage_errors
from rocktop_ray.evaluate.choices import CONVERSION
from rocktop_ray.evaluate.instruments import build_instruments, default_pitch_extractor
from rocktop_ray.evaluate.pair import evaluate_pair
from rocktop_ray.evaluate.picture import draw_conversion
from rocktop_ray.evaluate.report import Report
from rocktop_ray.protocols import ENCODER_RATE, TAKE_RATE
from rocktop_ray.settings import ConvertSettings
from rocktop_ray.takes import FileConversion, convert_file
from rocktop_ray.voices.open import bundle_folder

TARGET_CLIP = "target.flac"
"""Beside the bundle's voice: the target speaker, a recording that the voice was not trained on."""


@dataclass(frozen=True)
class Demo:
    """What was done, what came out, where it lies."""

    engine: Engine
    conversion: FileConversion
    report: Report
    load_seconds: float
    files: tuple[Path, ...]

    def tables(self) -> list[tuple[str, list[tuple[str, str]]]]:
        """Titles with rows of name and value."""
        info, done = self.engine.voice.info, self.conversion
        parts = self.engine.converter
        voice = [
            ("voice", f"{info.name} ({info.family}, {info.sample_rate} Hz), {info.licence}"),
            ("content encoder", f"{parts.encoder.spec.name}, {parts.encoder.spec.dim} wide"),
            ("pitch extractor", parts.extractor.name if parts.extractor else "none"),
            ("retrieval index", f"{parts.index.count} units" if parts.index else "none"),
            ("key", f"{done.key:+g} semitones"),
            ("device", self.engine.device),
        ]
        times = [("loading", f"{self.load_seconds:.2f} s")]
        times += [(stage, f"{seconds:.2f} s") for stage, seconds in done.stages.items()]
        times += [("real-time factor", f"{done.real_time_factor:.3f} ({1 / done.real_time_factor:.1f} x real time)")]
        return [("What ran", voice), ("Time", times), ("Measured", self.report.rows())]

    def as_dict(self) -> dict[str, Any]:
        """Everything as plain data."""
        return {
            "rocktop": rocktop_ray.__version__,
            "voice": self.engine.voice.info.as_dict(),
            "load_seconds": self.load_seconds,
            **self.conversion.as_dict(),
            "report": self.report.as_dict(),
        }


def run_demo(
    source: Path,
    out: Path,
    *,
    voice: str = "bundle",
    key: float | None = None,
    on_progress: Callable[[Progress], None] | None = None,
) -> Demo:
    """Convert ``source`` and write ``converted.wav``, ``picture.png`` and ``report.json`` into ``out``.

    ``key`` None chooses the octave that suits the voice, where the voice knows its own range. Raises RocktopError.
    """
    with storage_errors(out):
        out.mkdir(parents=True, exist_ok=True)
    began = time.perf_counter()
    engine = build_engine(voice)
    load_seconds = time.perf_counter() - began
    chosen: dict[str, Any] = {"auto_key": engine.voice.info.median_f0 is not None} if key is None else {"key": key}
    settings = ConvertSettings.from_mapping({**engine.voice.info.defaults, **chosen})
    converted, picture, facts = out / "converted.wav", out / "picture.png", out / "report.json"
    done = convert_file(engine.converter, source, converted, settings, on_progress=on_progress)
    take, result = read_take(source), read_take(converted)
    clip = bundle_folder() / TARGET_CLIP
    extractor = engine.converter.extractor or default_pitch_extractor()
    report = evaluate_pair(
        take,
        result,
        TAKE_RATE,
        metrics=CONVERSION,
        target=read_take(clip) if voice == "bundle" and clip.is_file() else None,
        key=done.key,
        instruments=build_instruments(CONVERSION, pitch=extractor),
    )
    sung = extractor.f0(resample(result, TAKE_RATE, ENCODER_RATE))
    draw_conversion(picture, take, result, TAKE_RATE, done.f0_source, sung)
    shown = Demo(engine, done, report, load_seconds, (converted, picture, facts))
    with storage_errors(facts):
        facts.write_text(json.dumps(shown.as_dict(), indent=2) + "\n")
    return shown
