"""What a dataset is made with. Unknown keys are refused; whatever changes a result is part of its address."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from rocktop_ray.audio.slice import SliceSettings
from rocktop_ray.errors import SettingsError

FORMAT = 1
"""Version of what lies in a dataset; raised when the same settings would give other bytes."""
SLICING = ("rvc", "pauses", "fixed")
LEVELS = ("rvc", "none")
NO_PITCH = "none"
LONGEST_SLICE = 20.0
"""Seconds. A part (one pass of the networks) holds at least one slice."""


@dataclass(frozen=True)
class DatasetConfig:
    """The parameters of a dataset. Raises SettingsError for a value out of its range."""

    rate: int = 48_000
    """Hz of the voice that will be trained; a multiple of 100, 16000..96000."""
    encoder: str = "hubert-v2"
    """Content encoder; a voice sings only with the encoder of its training."""
    pitch: str = "auto"
    """Pitch extractor; ``auto`` is the first installed of RMVPE and FCPE, ``none`` is for voices without F0."""
    slicing: str = "rvc"
    """``rvc``: at pauses, then pieces of ``slice_seconds`` that overlap; ``pauses``: at pauses, evenly where a slice
    would be longer than ``slice_seconds``; ``fixed``: pieces without a look at pauses."""
    slice_seconds: float = 3.7
    overlap: float = 0.3
    """Seconds that neighbouring pieces share (not with ``pauses``). A rest up to ``slice_seconds + overlap`` is one."""
    min_slice_seconds: float = 0.4
    """Shorter slices are dropped, and counted."""
    threshold_db: float = -42.0
    """RMS in dBFS below which 60 ms of audio are silent."""
    min_length: int = 1500
    """Milliseconds from a slice's begin to the first pause where it may end."""
    min_interval: int = 400
    """Milliseconds of the shortest pause that is cut."""
    max_sil_kept: int = 500
    """Milliseconds of silence left at each end of a slice."""
    highpass: bool = True
    """Remove what lies below 48 Hz (Butterworth of order 5, causal), as RVC does before training."""
    level: str = "rvc"
    """``rvc``: every slice ``x / peak * 0.675 + 0.25 x``, and never above 0.99; ``none``: as it is."""
    min_seconds: float = 0.5
    """Shorter takes are rejected."""
    min_rate: int = 16_000
    """Takes recorded at a lower rate are rejected: what the voice should learn is not in them."""
    max_clipped: float = 0.001
    """Largest share of samples in runs of three or more at full scale."""

    def __post_init__(self) -> None:
        for name, low, high in (
            ("rate", 16_000, 96_000),
            ("slice_seconds", 0.5, LONGEST_SLICE),
            ("overlap", 0.0, 5.0),
            ("min_slice_seconds", 0.04, LONGEST_SLICE),
            ("threshold_db", -120.0, 0.0),
            ("min_interval", 60, 60_000),
            ("max_sil_kept", 15, 60_000),
            ("min_seconds", 0.05, 3600.0),
            ("min_rate", 2_000, 96_000),
            ("max_clipped", 0.0, 1.0),
        ):
            value = getattr(self, name)
            if not low <= value <= high:
                raise SettingsError(f"{name} must be {low:g} to {high:g}, not {value:g}")
        for name, known in (("slicing", SLICING), ("level", LEVELS)):
            if getattr(self, name) not in known:
                raise SettingsError(f"{name} must be one of {', '.join(known)}, not {getattr(self, name)!r}")
        if self.rate % 100:
            raise SettingsError(f"rate must be a multiple of 100 Hz, not {self.rate}")
        if self.overlap >= self.slice_seconds or self.min_slice_seconds > self.slice_seconds:
            raise SettingsError("overlap and min_slice_seconds must be shorter than slice_seconds")
        self.slicer  # noqa: B018 - its own checks

    @property
    def slicer(self) -> SliceSettings:
        """The settings of the cuts at pauses."""
        return SliceSettings(self.threshold_db, self.min_length, self.min_interval, 15, self.max_sil_kept)

    @property
    def hop(self) -> int:
        """Samples of one frame of 10 ms."""
        return self.rate // 100

    @classmethod
    def from_mapping(cls, values: Mapping[str, Any]) -> DatasetConfig:
        """From plain data (JSON, YAML). Raises SettingsError for unknown keys and for values of another type."""
        kinds: dict[str, type] = {field.name: type(field.default) for field in fields(cls)}
        if unknown := sorted(set(values) - set(kinds)):
            raise SettingsError(f"unknown settings of a dataset: {', '.join(unknown)}; known: {', '.join(kinds)}")
        given: dict[str, Any] = {}
        for name, value in values.items():
            kind = kinds[name]
            if kind is float and type(value) is int:
                value = float(value)
            if type(value) is not kind:
                raise SettingsError(f"{name} must be of type {kind.__name__}, not {value!r}")
            given[name] = value
        return cls(**given)

    def as_mapping(self) -> dict[str, Any]:
        """Plain data, as ``from_mapping`` takes it."""
        return asdict(self)

    @property
    def scan_fingerprint(self) -> str:
        """Of all that decides what is kept of a take, and where it is sliced."""
        values = self.as_mapping()
        del values["encoder"], values["pitch"], values["level"]
        return digest([FORMAT, values])


def digest(values: object) -> str:
    """SHA-256 of plain data, in hexadecimal, the same in every process."""
    text = json.dumps(values, sort_keys=True, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()
