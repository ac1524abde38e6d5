"""What may be measured, and how: names of metrics, and the settings of an evaluation."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

from rocktop_ray.errors import SettingsError

METRICS = (
    "f0",
    "speaker",
    "mcd",
    "lsd",
    "stft",
    "si_sdr",
    "stoi",
    "pesq",
    "visqol",
    "dnsmos",
    "words",
)
"""Names of metrics. Length, level, loudness and clipping are always measured."""
CHEAP = ("f0", "mcd", "lsd", "stft", "si_sdr")
"""Metrics that need no weights and no optional package, for validation in training."""
CONVERSION = ("f0", "speaker", "mcd", "lsd", "stft", "dnsmos", "words")
"""Metrics that say something of a take in another voice."""
IN_TIME = ("lsd", "stft", "si_sdr", "stoi", "pesq", "visqol")
"""Metrics that compare moment with moment, and mean nothing where the result is sung in another tempo."""

Align = Literal["none", "dtw"]


@dataclass(frozen=True)
class Choices:
    """Settings of an evaluation."""

    metrics: tuple[str, ...] = METRICS
    align: Align = "none"
    """``dtw``: F0 and mel cepstra along the path of dynamic time warping; IN_TIME metrics are left out."""
    key: float | None = None
    """Semitones by which the result was meant to be higher; None to take the nearest whole number."""
    seconds: float = 120.0
    """How much of a take is used for all metrics but F0, speaker, words, level and length."""

    def __post_init__(self) -> None:
        unknown = [name for name in self.metrics if name not in METRICS]
        if unknown:
            raise SettingsError(f"unknown metrics: {', '.join(unknown)}; known: {', '.join(METRICS)}")
        if self.align not in ("none", "dtw"):
            raise SettingsError(f"align is none or dtw, not {self.align!r}")
        if self.key is not None and not -48 <= self.key <= 48:
            raise SettingsError(f"the key is -48 to 48 semitones, not {self.key:g}")
        if not 1 <= self.seconds <= 600:
            raise SettingsError(f"1 to 600 seconds can be used, not {self.seconds:g}")

    def as_dict(self) -> dict[str, Any]:
        """Plain data."""
        return {**asdict(self), "metrics": list(self.metrics)}


def choose(names: str | None) -> tuple[str, ...]:
    """``f0,mcd`` to names, in the order of METRICS; ``all``, ``cheap`` and ``conversion`` too. Raises SettingsError."""
    groups = {"all": METRICS, "cheap": CHEAP, "conversion": CONVERSION}
    if names is None:
        return METRICS
    wanted: list[str] = []
    for name in (part.strip().lower().replace("-", "_") for part in names.split(",")):
        wanted += groups.get(name, (name,)) if name else ()
    if not wanted:
        raise SettingsError(f"name some metrics: {', '.join([*groups, *METRICS])}")
    return tuple(sorted(Choices(tuple(dict.fromkeys(wanted))).metrics, key=METRICS.index))
