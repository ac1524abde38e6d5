"""The two voices of these measurements: the stock one with random weights, and the bundle."""

from __future__ import annotations

from functools import cache
from typing import Any

from rocktop_ray.convert import Converter
from rocktop_ray.engine import build_engine
from rocktop_ray.features.content.registry import build_content_encoder
from rocktop_ray.features.pitch.registry import build_pitch_extractor
from rocktop_ray.live.converter import LiveConverter
from rocktop_ray.live.layout import LiveLayout
from rocktop_ray.live.open import open_live
from rocktop_ray.live.parts import LiveParts, exact_parts, live_pitch
from rocktop_ray.voices.open import open_voice

VOICES = ("bundle", "stock")


def offline_converter(voice: str, files: dict[str, str]) -> Converter:
    """``stock``: files of ``benchmarks.compare``; ``bundle``: as installed."""
    if voice == "bundle":
        return build_engine("bundle", device="cpu").converter
    opened = open_voice(files["voice"], index=files["index"])
    encoder = build_content_encoder("hubert-v2", path=files["hubert"])
    return Converter(encoder, build_pitch_extractor("rmvpe", path=files["rmvpe"]), opened.model, opened.index)


def live_converter(voice: str, offline: Converter, case: dict[str, Any]) -> LiveConverter:
    """The same voice in hops of ``hop`` frames: as streams have it, or with ``windows`` by what hears offline."""
    layout = LiveLayout(hop=case["hop"], ahead=case["ahead"])
    if case.get("windows"):
        return LiveConverter(offline, layout)
    if voice == "bundle":
        return LiveConverter(_students() or offline, layout)
    pitch = live_pitch(None, lambda: build_pitch_extractor("rmvpe"))
    return LiveConverter(LiveParts(offline.voice, offline.index, offline.encoder, pitch), layout)


def served_converter(voice: str, pitch: str | None) -> LiveConverter:
    """A voice by name as the service has it, by the default configuration."""
    from serve_apps.config import LiveConfig

    config = LiveConfig()
    made = open_live(voice, layout=LiveLayout(**config.layout.model_dump()), pitch=pitch)
    return made if made.exact else open_live(voice, layout=LiveLayout(**config.windows.model_dump()), pitch=pitch)


@cache
def _students() -> LiveParts | None:
    return exact_parts(open_voice("bundle"))
