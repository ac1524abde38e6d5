"""What a caller may set for one conversion, with ranges. Names in brackets are RVC's own."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import Any, Literal, get_args

from rocktop_ray.errors import SettingsError
from rocktop_ray.features.pitch.curves import SCALES, note_class

Unvoiced = Literal["zero", "interpolate"]


@dataclass(frozen=True)
class ConvertSettings:
    """Settings of one conversion; unknown names, wrong types and values out of range raise SettingsError.

    Attributes:
        key: transposition in semitones, -36..36 [f0_up_key].
        auto_key: choose the key from the melody and the voice's own range; ``key`` is added to it.
        formant: shift of the take's formants before conversion in semitones, -12..12.
        index_rate: share of retrieved units, 0..1.
        protect: how much of the unblended units voiceless frames keep, 0..0.5; 0.5 is off.
        rms_mix: 1 keeps the converted loudness, 0 follows the take's [rms_mix_rate].
        speaker: speaker of a multi-speaker voice, from 0 [sid].
        temperature: scale of the prior noise, 0..2.
        seed: of all random draws; the same seed gives the same bytes.
        unvoiced: F0 of voiceless frames. ``zero`` (classic RVC, Applio): the voice's noise source sounds there, and
            ``protect`` acts. ``interpolate`` (RVC of 2026): the melody is carried across. A voice wants what it was
            trained with.
        median_radius: median filter over voiced F0, in frames to each side, 0..50; 0 is off [filter_radius].
        autotune: strength of snapping to the scale, 0..1; 0 is off.
        scale: ``chromatic``, ``major``, ``minor``... (see ``features.pitch.curves``).
        root: tonic of the scale, ``C`` to ``B``, with ``#`` or ``b``.
    """

    key: float = 0.0
    auto_key: bool = False
    formant: float = 0.0
    index_rate: float = 0.75
    protect: float = 0.33
    rms_mix: float = 0.25
    speaker: int = 0
    temperature: float = 0.66666
    seed: int = 0
    unvoiced: Unvoiced = "zero"
    median_radius: int = 0
    autotune: float = 0.0
    scale: str = "chromatic"
    root: str = "C"

    def __post_init__(self) -> None:
        for name, (low, high) in _RANGES.items():
            value = getattr(self, name)
            whole = name in _WHOLE
            if isinstance(value, bool) or not isinstance(value, int if whole else (int, float)):
                raise SettingsError(f"{name} must be a {'whole ' if whole else ''}number, not {value!r}")
            if not (math.isfinite(value) and low <= value <= high):
                raise SettingsError(f"{name} must be between {low:g} and {high:g}, not {value!r}")
        if self.unvoiced not in get_args(Unvoiced):
            raise SettingsError(f"unvoiced must be one of {', '.join(get_args(Unvoiced))}, not {self.unvoiced!r}")
        if not isinstance(self.auto_key, bool):
            raise SettingsError(f"auto_key must be true or false, not {self.auto_key!r}")
        if not isinstance(self.scale, str) or self.scale not in SCALES:
            raise SettingsError(f"scale must be one of {', '.join(SCALES)}, not {self.scale!r}")
        if not isinstance(self.root, str):
            raise SettingsError(f"root must be the name of a note, not {self.root!r}")
        note_class(self.root)

    @classmethod
    def from_mapping(cls, values: dict[str, Any]) -> ConvertSettings:
        """Settings from untyped data (JSON, a voice's defaults); unknown names raise SettingsError."""
        known = {field.name for field in fields(cls)}
        unknown = sorted(set(values) - known)
        if unknown:
            raise SettingsError(f"unknown setting {', '.join(unknown)}; known: {', '.join(sorted(known))}")
        return cls(**values)


_RANGES: dict[str, tuple[float, float]] = {
    "key": (-36, 36),
    "formant": (-12, 12),
    "index_rate": (0, 1),
    "protect": (0, 0.5),
    "rms_mix": (0, 1),
    "speaker": (0, 2**31 - 1),
    "temperature": (0, 2),
    "seed": (0, 2**63 - 1),
    "median_radius": (0, 50),
    "autotune": (0, 1),
}
_WHOLE = {"speaker", "seed", "median_radius"}
