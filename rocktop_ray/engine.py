"""The one place where a converter is put together from names: voice, content encoder, pitch extractor, device."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from rocktop_ray.convert import Converter
from rocktop_ray.errors import ModelMissingError, SettingsError
from rocktop_ray.features.content.registry import build_content_encoder
from rocktop_ray.features.pitch.registry import build_pitch_extractor
from rocktop_ray.protocols import PitchExtractor
from rocktop_ray.voices.open import Voice, open_voice

PREFERRED_EXTRACTORS = ("rmvpe", "fcpe")
"""The first of these that is installed is taken where nobody chose."""


@dataclass(frozen=True)
class Engine:
    """A converter and what it was made of."""

    converter: Converter
    voice: Voice
    device: str


def pick_device(name: str = "auto") -> str:
    """``auto`` -> ``cuda`` where torch sees a GPU (CUDA or ROCm), else ``cpu``; other names are checked.

    Raises SettingsError if the device is unknown or not there.
    """
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        kind = torch.device(name).type
    except RuntimeError as error:
        raise SettingsError(f"unknown device {name!r}: use auto, cpu, cuda or cuda:0") from error
    if kind == "cuda" and not torch.cuda.is_available():
        raise SettingsError("torch sees no GPU here: use --device cpu, and see 'rocktop doctor'")
    if kind not in ("cpu", "cuda"):
        raise SettingsError(f"device {name!r} is not supported: use auto, cpu, cuda or cuda:0")
    return name


def build_engine(
    voice: str | Path,
    *,
    index: str | Path | None = None,
    encoder_path: str | Path | None = None,
    pitch: str | None = None,
    pitch_path: str | Path | None = None,
    device: str = "auto",
    library: Path | None = None,
) -> Engine:
    """Everything that converting with one voice needs.

    Args:
        voice: a name in the library, ``bundle``, or a voice file.
        index: a retrieval index in place of the voice's own.
        encoder_path: weights of the content encoder in place of the installed ones.
        pitch: name of the pitch extractor; None takes the voice's own choice, else the first installed of RMVPE, FCPE.
        pitch_path: its weights, in place of the installed ones.
        device: see ``pick_device``.
        library: folder of the voice library; None is the user's own.

    Raises VoiceNotFoundError, VoiceFormatError, ModelMissingError, SettingsError.
    """
    device = pick_device(device)
    opened = open_voice(voice, library=library, index=index, device=device)
    spec = opened.model.spec
    encoder = build_content_encoder(spec.content.name, path=encoder_path, device=device)
    extractor = None
    if spec.uses_f0:
        extractor = _extractor(pitch or opened.default_extractor, pitch_path, device)
    converter = Converter(encoder, extractor, opened.model, opened.index, median_f0=opened.info.median_f0)
    return Engine(converter, opened, device)


def _extractor(name: str | None, path: str | Path | None, device: str) -> PitchExtractor:
    if name is not None:
        return build_pitch_extractor(name, path=path, device=device)
    for candidate in PREFERRED_EXTRACTORS:
        try:
            return build_pitch_extractor(candidate, device=device)
        except ModelMissingError:
            continue
    raise ModelMissingError(
        f"no pitch extractor is installed: run 'rocktop models fetch {PREFERRED_EXTRACTORS[-1]}'", stage="pitch"
    )
