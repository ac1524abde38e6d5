"""What one client of ``delay.py`` noted, and what follows from it."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.live.figures import Array, click_lags, sound_lag, wave_lag
from benchmarks.live.takes import clicks, sung
from rocktop_ray.live.messages import Flags

_ALIKE = 0.5
"""From here on two waves are the same sound; below, the sounds are compared by loudness in bands."""
_COMPARED = 20.0
"""Seconds that are compared with the offline conversion, and those before them that are left out."""
_WARM = 1.0
_MOST_LAG = 0.6


@dataclass(frozen=True)
class Part:
    """One of a client's sessions: seconds by block, and what the server said."""

    due: Array
    sent: Array
    arrived: Array
    flags: Array
    heard: Array
    facts: dict[str, Any]

    @property
    def delay(self) -> int:
        """Samples that the server announced."""
        return int(self.facts["started"].get("delay", 0))

    @property
    def answers(self) -> Array:
        """Seconds from sending a block to having its answer; NaN where none came."""
        return self.arrived - self.sent

    def count(self, flag: Flags) -> int:
        """Blocks with a flag, and for LOST those that never came."""
        flagged = int(np.count_nonzero(np.nan_to_num(self.flags).astype(int) & int(flag)))
        return flagged + (int(np.isnan(self.arrived).sum()) if flag is Flags.LOST else 0)

    def from_the_mouth(self, lag: float, rate: int, block: int) -> Array:
        """Seconds from singing to hearing of each block, if it is played the moment that it comes.

        lag: samples by which what comes out is older than what goes in, as measured.
        """
        if not len(self.due):
            return np.zeros(0)
        return np.asarray(self.arrived - self.due + (block + lag) / rate)

    def overheads(self) -> list[float]:
        """Seconds of each block's answer beyond the computing that the server told of that second (its median)."""
        found, before = [], -1
        for stat in self.facts["stats"]:
            window = self.answers[before + 1 : stat["seq"] + 1]
            found += [float(answer) - stat["compute_ms"]["p50"] / 1e3 for answer in window if np.isfinite(answer)]
            before = stat["seq"]
        return found

    def computed(self, name: str) -> list[float]:
        """Milliseconds of computing (p50, p95, max) of each second."""
        return [stat["compute_ms"][name] for stat in self.facts["stats"]]


@dataclass
class Call:
    """One client."""

    rate: int
    block: int
    clip: int
    dry: Part | None = None
    wet: Part | None = None
    error: str = ""
    click_lags: list[int | None] = field(default_factory=list)
    sung_lag: float = float("nan")
    """Samples by which the converted take comes after the offline conversion."""
    alike: float = float("nan")
    by: str = ""
    """How it was found: by the wave or by the sound."""


def read_call(report: Path, rate: int, block: int, clip: int, pitch: str | None = None) -> Call:
    """Read a client's report and find out how late clicks and singing were. Never raises for a client that failed."""
    call = Call(rate, block, clip)
    if not report.exists():
        call.error = "the client left no report"
        return call
    with np.load(report) as noted:
        parts = {
            name: Part(
                *(noted[f"{name}_{part}"] for part in ("due", "sent", "arrived", "flags", "heard")),
                json.loads(str(noted[f"{name}_facts"])),
            )
            for name in ("dry", "wet")
            if f"{name}_facts" in noted
        }
    call.dry, call.wet = parts.get("dry"), parts.get("wet")
    call.error = "; ".join(part.facts["error"] for part in parts.values() if part.facts["error"])
    if call.dry is not None and len(call.dry.heard):
        sent = clicks(len(call.dry.due) * block / rate + 1, rate)
        held = len(call.dry.due) * block
        inside = [position for position in sent.positions if position < held]
        call.click_lags = click_lags(inside, sent.pulse, call.dry.heard, call.dry.delay, round(0.05 * rate))
    if call.wet is not None and len(call.wet.heard) > 3 * rate:
        _compare(call, call.wet, pitch)
    return call


def _compare(call: Call, wet: Part, pitch: str | None) -> None:
    """Where the conversion stands, beside the offline one of the same take with the same settings."""
    rate = call.rate
    first, last = round(_WARM * rate), min(len(wet.heard), round((_WARM + _COMPARED) * rate))
    started = wet.facts["started"]
    offline = _offline(started["voice"], pitch, json.dumps(started["settings"]), call.clip, rate)
    reference = offline[first:last]
    call.sung_lag, call.alike = wave_lag(reference, wet.heard[first:last], round(_MOST_LAG * rate))
    call.by = "wave"
    if call.alike < _ALIKE:
        seconds, call.alike = sound_lag(reference, wet.heard[first:last], rate, _MOST_LAG)
        call.sung_lag, call.by = seconds * rate, "sound"


@cache
def _offline(voice: str, pitch: str | None, settings: str, clip: int, rate: int) -> Array:
    from rocktop_ray.audio.resample import StreamResampler
    from rocktop_ray.engine import build_engine
    from rocktop_ray.protocols import TAKE_RATE
    from rocktop_ray.settings import ConvertSettings

    take = sung(_WARM + _COMPARED + 1, TAKE_RATE, clip)
    converter = build_engine(voice, pitch=pitch, device="cpu").converter
    made = converter.convert(take, ConvertSettings.from_mapping(json.loads(settings)))
    if rate == TAKE_RATE:
        return made.audio
    stream = StreamResampler(TAKE_RATE, rate)
    return np.concatenate([stream.push(made.audio), stream.finish()])
