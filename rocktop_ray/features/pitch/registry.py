"""Pitch extractors by name."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

from rocktop_ray.errors import SettingsError
from rocktop_ray.protocols import PitchExtractor


class _Entry(NamedTuple):
    module: str
    cls: str
    fixed: Mapping[str, str] = MappingProxyType({})
    weights: str | None = None


_ENTRIES: Mapping[str, _Entry] = MappingProxyType(
    {
        "rmvpe": _Entry("rmvpe", "RmvpeExtractor", weights="rmvpe"),
        "fcpe": _Entry("fcpe", "FcpeExtractor", weights="fcpe"),
        "crepe": _Entry("crepe", "CrepeExtractor", {"size": "full"}, weights="crepe-full"),
        "crepe-tiny": _Entry("crepe", "CrepeExtractor", {"size": "tiny"}, weights="crepe-tiny"),
        "pm": _Entry("praat", "PraatExtractor"),
        "harvest": _Entry("harvest", "HarvestExtractor"),
    }
)

EXTRACTORS = tuple(_ENTRIES)
"""Names of the extractors."""


def weights_of(name: str) -> str | None:
    """Catalogue name of the weights that an extractor needs; None if it needs none. Raises SettingsError."""
    return _entry(name).weights


def build_pitch_extractor(
    name: str, *, path: Path | str | None = None, device: str = "cpu", **options: float
) -> PitchExtractor:
    """The pitch extractor of that name.

    Args:
        name: one of :data:`EXTRACTORS`.
        path: its weights file; None means the installed one. Not for ``pm`` and ``harvest``, which need none.
        device: torch device of its network.
        options: ``threshold`` (all but ``harvest``), ``median`` (``harvest``), ``batch`` (CREPE): see the classes.

    Raises:
        SettingsError: an unknown name or option, or one out of range.
        ModelMissingError: the weights are not installed.
        UnsafeFileError, VoiceFormatError: the weights cannot be used.
    """
    entry = _entry(name)
    make = getattr(import_module(f"rocktop_ray.features.pitch.{entry.module}"), entry.cls)
    arguments: dict[str, Any] = {**options, **entry.fixed}
    if entry.weights is not None:
        arguments |= {"path": path, "device": device}
    elif path is not None:
        raise SettingsError(f"the pitch extractor {name} has no weights: leave out {path}", stage="pitch")
    known = set(inspect.signature(make).parameters)
    for option in options:
        if option not in known or option in entry.fixed:
            possible = ", ".join(sorted(known - {"path", "device", *entry.fixed}))
            raise SettingsError(f"the pitch extractor {name} has no option {option!r}, only {possible}", stage="pitch")
    extractor: PitchExtractor = make(**arguments)
    return extractor


def _entry(name: str) -> _Entry:
    if name not in _ENTRIES:
        raise SettingsError(f"unknown pitch extractor {name!r}: choose one of {', '.join(EXTRACTORS)}", stage="pitch")
    return _ENTRIES[name]
