"""Figures of ``delay.py`` to tables and a picture."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.live.figures import Spread, missed_per_hour, spread, underruns
from benchmarks.live.measured import Call, Part
from rocktop_ray.live.messages import Flags

ALLOWED = (0.01, 0.02, 0.04, 0.06)
"""Seconds that a block's answer may take, for which those that took longer are counted."""
CUSHIONS = (0.005, 0.01, 0.02, 0.04)
"""Seconds that a player holds back, for which underruns are counted."""


@dataclass(frozen=True)
class Case:
    """One service with so many streams at once."""

    name: str
    streams: int
    calls: list[Call]
    cores: dict[str, float]
    ready_seconds: float

    def parts(self, which: str) -> list[tuple[Call, Part]]:
        """Sessions of all clients, ``dry`` or ``wet``."""
        found = [(call, getattr(call, which)) for call in self.calls]
        return [(call, part) for call, part in found if part is not None and len(part.due) and part.facts["started"]]

    def answers(self, which: str) -> list[float]:
        """Seconds of all blocks."""
        return [float(answer) for _, part in self.parts(which) for answer in part.answers]

    def mouth_to_ear(self, which: str) -> list[float]:
        """Seconds of all blocks, with the lag that was measured for each stream."""
        found: list[float] = []
        for call, part in self.parts(which):
            lags = [lag for lag in call.click_lags if lag is not None]
            lag = call.sung_lag if which == "wet" else float(np.median(lags)) if lags else float("nan")
            found += [float(each) for each in part.from_the_mouth(lag, call.rate, call.block)]
        return found

    def figures(self, block: float) -> dict[str, Any]:
        """All of it as plain data. ``block``: seconds."""
        wet, dry = self.parts("wet"), self.parts("dry")
        clicks = [lag for call, _ in dry for lag in call.click_lags]
        away = [abs(lag - part.delay) for call, part in dry for lag in call.click_lags if lag is not None]
        hours = sum(len(part.due) for _, part in wet) * block / 3600
        late, lost = (sum(part.count(flag) for _, part in wet) for flag in (Flags.LATE, Flags.LOST))
        return {
            "name": self.name,
            "streams": self.streams,
            "errors": [call.error for call in self.calls if call.error],
            "events": [event for _, part in wet for event in part.facts["events"]],
            "ready_seconds": self.ready_seconds,
            "announced_ms": [part.delay / call.rate * 1e3 for call, part in [*dry, *wet]],
            "exact": [bool(part.facts["started"].get("exact")) for _, part in wet],
            "clicks": len(clicks),
            "clicks_missing": sum(lag is None for lag in clicks),
            "clicks_off_samples": max(away, default=0),
            "sung": [
                {
                    "lag_ms": call.sung_lag / call.rate * 1e3,
                    "off_ms": (call.sung_lag - part.delay) / call.rate * 1e3,
                    "alike": call.alike,
                    "by": call.by,
                }
                for call, part in wet
            ],
            "click_to_ear_ms": _ms(self.mouth_to_ear("dry")),
            "sung_to_ear_ms": _ms(self.mouth_to_ear("wet")),
            "answer_dry_ms": _ms(self.answers("dry")),
            "answer_ms": _ms(self.answers("wet")),
            "sender_late_ms": _ms(float(each) for _, part in wet for each in part.sent - part.due),
            "computed_ms": {
                name: _ms(each / 1e3 for _, part in wet for each in part.computed(name))
                for name in ("p50", "p95", "max")
            },
            "overhead_dry_ms": _ms(each for _, part in dry for each in part.overheads()),
            "overhead_ms": _ms(each for _, part in wet for each in part.overheads()),
            "queue_ms": _ms(stat["queue_ms"] / 1e3 for _, part in wet for stat in part.facts["stats"]),
            "late": late,
            "lost": lost,
            "stream_hours": hours,
            "missed_per_hour": {
                f"{allowed * 1e3:g} ms": missed_per_hour(self.answers("wet"), allowed, block) for allowed in ALLOWED
            },
            "underruns": {
                f"{cushion * 1e3:g} ms": sum(underruns(part.arrived.tolist(), block, cushion) for _, part in wet)
                for cushion in CUSHIONS
            },
            "cores": self.cores,
        }


def markdown(cases: Iterable[Case], block: float) -> str:
    """Delay; answers; processors."""
    found = [case.figures(block) for case in cases]
    return "\n".join([_delays(found), _answers(found), _cores(found)])


def _delays(found: list[dict[str, Any]]) -> str:
    lines = [
        "| service | streams | announced, ms | clicks found, off by samples | click to ear: p50 / p95 / p99, ms |"
        " singing against offline: off by ms (likeness) | singing to ear: p50 / p95 / p99, ms | failed |",
        "|" + "---|" * 8,
    ]
    for one in found:
        sung = ", ".join(f"{each['off_ms']:+.1f} ({each['by']} {each['alike']:.2f})" for each in one["sung"])
        cells = [
            one["name"],
            one["streams"],
            " / ".join(sorted({f"{each:.1f}" for each in one["announced_ms"]})),
            f"{one['clicks'] - one['clicks_missing']} of {one['clicks']}, {one['clicks_off_samples']}",
            _three(one["click_to_ear_ms"]),
            sung,
            _three(one["sung_to_ear_ms"]),
            f"{len(one['errors'])}: {one['errors'][0]:.60}" if one["errors"] else "0",
        ]
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    return "\n".join(lines) + "\n"


def _answers(found: list[dict[str, Any]]) -> str:
    cushions = " / ".join(f"{each * 1e3:g}" for each in CUSHIONS)
    lines = [
        "| service | streams | answer: p50 / p95 / p99 / max, ms | computing told: p50 / p95, ms |"
        " beyond it, singing: p50 / p95, ms | dry: p50 / p95, ms | late, lost, of hours of stream |"
        f" underruns of a player that holds back {cushions} ms |",
        "|" + "---|" * 8,
    ]
    for one in found:
        dry = " / ".join(str(each) for each in one["underruns"].values())
        cells = [
            one["name"],
            one["streams"],
            f"{_three(one['answer_ms'])} / {one['answer_ms']['max']:.0f}",
            f"{one['computed_ms']['p50']['p50']:.1f} / {one['computed_ms']['p95']['p50']:.1f}",
            f"{one['overhead_ms']['p50']:.1f} / {one['overhead_ms']['p95']:.1f}",
            f"{one['overhead_dry_ms']['p50']:.1f} / {one['overhead_dry_ms']['p95']:.1f}",
            f"{one['late']}, {one['lost']}, {one['stream_hours']:.3f}",
            dry,
        ]
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    return "\n".join(lines) + "\n"


def _cores(found: list[dict[str, Any]]) -> str:
    names = sorted({name for one in found for name in one["cores"]} - {"foreign"})
    lines = [
        "| service | streams | " + " | ".join(f"cores: {name}" for name in names) + " | foreign | ready after, s |",
        "|" + "---|" * (len(names) + 4),
    ]
    for one in found:
        cores = [f"{one['cores'].get(name, 0.0):.2f}" for name in [*names, "foreign"]]
        cells = [one["name"], str(one["streams"]), *cores, f"{one['ready_seconds']:.0f}"]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def picture(cases: Iterable[Case], block: float, path: Path) -> None:
    """Two histograms for each case: answers, and singing to ear."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    shown = [case for case in cases if np.isfinite(case.answers("wet")).any()]
    if not shown:
        return
    figure, axes = pyplot.subplots(1, 2, figsize=(10, 3.6), layout="constrained")
    for case in shown:
        for axis, seconds in zip(axes, (case.answers("wet"), case.mouth_to_ear("wet")), strict=True):
            values = 1e3 * np.array([each for each in seconds if np.isfinite(each)])
            if len(values):
                edges = np.linspace(0, max(20.0, float(np.percentile(values, 99.9)) * 1.1), 80)
                label = f"{case.name}, {case.streams} streams"
                axis.hist(np.clip(values, 0, edges[-1]), edges, density=True, histtype="step", label=label)
    axes[0].axvline(block * 1e3, color="0.6", linestyle=":")
    axes[0].set(title="A block's answer (dotted: the block's own length)", xlabel="ms", ylabel="share per ms")
    axes[1].axvline(120, color="0.6", linestyle=":")
    axes[1].set(title="From singing to hearing (dotted: 120 ms)", xlabel="ms")
    axes[0].legend(fontsize=8)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


def _ms(seconds: Iterable[float]) -> dict[str, Any]:
    found: Spread = spread(each * 1e3 for each in seconds)
    return asdict(found)


def _three(values: dict[str, Any]) -> str:
    return " / ".join(f"{values[name]:.0f}" for name in ("p50", "p95", "p99"))
