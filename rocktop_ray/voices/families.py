"""The kinds of voice that can be loaded. A file says by its content which one it is, whatever its name."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rocktop_ray.errors import VoiceFormatError
from rocktop_ray.protocols import VoiceModel
from rocktop_ray.voices.info import VoiceInfo, plain_info
from rocktop_ray.voices.rvc_format import RvcFile, read_rvc
from rocktop_ray.voices.safe_load import is_safetensors, load_metadata

SINGER_FORMAT = "rocktop-singer"


@dataclass(frozen=True)
class LoadedVoice:
    """A voice file in memory. ``rvc`` is what the file holds, for the RVC family."""

    info: VoiceInfo
    model: Callable[[str], VoiceModel]
    """Makes the network on a device."""
    rvc: RvcFile | None = None


def load_voice_file(path: str | Path) -> LoadedVoice:
    """Read and check a voice file of any family.

    Raises VoiceFormatError, UnsafeFileError, VoiceNotFoundError or StorageError.
    """
    path = Path(path)
    kind = load_metadata(path).get("format", "") if is_safetensors(path) else ""
    loaded = _FAMILIES.get(kind, _load_rvc)(path)
    return replace(loaded, info=plain_info(loaded.info))


def rvc_info(voice: RvcFile, name: str, source: str) -> VoiceInfo:
    """The facts of an RVC voice."""
    return VoiceInfo(
        name=name,
        family="rvc",
        sample_rate=voice.config.sample_rate,
        uses_f0=voice.config.uses_f0,
        content_name=voice.content_name,
        content_dim=voice.config.content_dim,
        speakers=voice.config.speakers,
        decoder=voice.config.decoder,
        version=voice.version,
        info=voice.info,
        licence=voice.licence,
        training_data=voice.training_data,
        source=source,
        extra=voice.extra,
    )


def _load_rvc(path: Path) -> LoadedVoice:
    voice = read_rvc(path)

    def model(device: str) -> VoiceModel:
        from rocktop_ray.models.rvc.voice import RvcVoice

        return RvcVoice(voice.config, voice.state, content_name=voice.content_name, device=device)

    return LoadedVoice(rvc_info(voice, path.stem, path.name), model, voice)


def _load_singer(path: Path) -> LoadedVoice:
    from rocktop_ray.voices.singer_format import load_singer

    metadata = load_metadata(path)
    made = load_singer(path, device="cpu")
    spec = made.spec
    info = VoiceInfo(
        name=path.stem,
        family="singer",
        sample_rate=spec.sample_rate,
        uses_f0=spec.uses_f0,
        content_name=spec.content.name,
        content_dim=spec.content.dim,
        speakers=spec.speakers,
        decoder="source-filter",
        info=metadata.get("info", ""),
        licence=metadata.get("licence", ""),
        training_data=metadata.get("training_data", ""),
        source=path.name,
        median_f0=_number(metadata.get("median_f0"), path.name),
        default_extractor=metadata.get("default_extractor") or None,
        defaults=_object(metadata.get("defaults"), path.name),
        extra={key: metadata[key] for key in ("credits", "speakers") if metadata.get(key)},
    )
    return LoadedVoice(info, lambda device: made if device == "cpu" else load_singer(path, device=device))


def _number(text: str | None, name: str) -> float | None:
    if not text:
        return None
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if value == 0:
        return None
    if not 10 < value < 10_000:
        raise VoiceFormatError(f"{name}: median_f0 is {text[:20]!r}, expected Hz")
    return value


def _object(text: str | None, name: str) -> dict[str, Any]:
    try:
        value = json.loads(text or "{}")
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise VoiceFormatError(f"{name}: its default settings are no JSON object")
    return value


_FAMILIES: dict[str, Callable[[Path], LoadedVoice]] = {SINGER_FORMAT: _load_singer}
"""Loader by ``format`` in the metadata; everything else is tried as RVC."""
