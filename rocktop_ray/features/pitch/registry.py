"""Pitch extractors by name."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

from rocktop_ray.errors import SettingsError
from rocktop_ray.protocols import PitchExtractor

_WEIGHTED: dict[str, tuple[str, str, dict[str, Any]]] = {
    "fcpe": ("fcpe", "FcpeExtractor", {}),
}
EXTRACTORS = tuple(_WEIGHTED)


def build_pitch_extractor(
    name: str, *, path: Path | str | None = None, device: str = "cpu", **options: float
) -> PitchExtractor:
    """The extractor of that name."""
    if name not in EXTRACTORS:
        raise SettingsError(f"unknown pitch extractor {name!r}: choose one of {', '.join(EXTRACTORS)}", stage="pitch")
    module, cls, fixed = _WEIGHTED[name]
    make: Callable[..., PitchExtractor] = getattr(import_module(f"rocktop_ray.features.pitch.{module}"), cls)
    return make(path=path, device=device, **fixed, **options)
