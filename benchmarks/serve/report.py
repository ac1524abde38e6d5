"""Figures to Markdown tables."""

from __future__ import annotations

import platform
from collections.abc import Iterable
from pathlib import Path

from benchmarks.serve.clients import Crowd
from benchmarks.serve.overhead import Overhead


def machine() -> str:
    """What the figures were taken on."""
    import os

    import ray
    import torch

    return (
        f"{os.cpu_count()} cores ({_model()}), Python {platform.python_version()}, torch {torch.__version__}, "
        f"Ray {ray.__version__}, load average before: {os.getloadavg()[0]:.1f}"
    )


def overhead(found: Iterable[tuple[str, Overhead]], audio_seconds: float) -> str:
    """One line per deployment."""
    lines = [
        "| deployment | library, s | handle, s | HTTP, s | handle: more, ms (quartiles) | HTTP: more, ms (quartiles) |"
        " handle, % | HTTP, % | outside the stages, library / handle, ms | different results | rounds |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    found = list(found)
    for name, result in found:
        library = result.typical("library")
        cells = [name, *(f"{result.typical(way):.3f}" for way in ("library", "handle", "http"))]
        for way in ("handle", "http"):
            low, high = result.quartiles(way)
            cells.append(f"{1e3 * result.more(way):.1f} ({1e3 * low:.1f} to {1e3 * high:.1f})")
        cells += [f"{100 * result.more(way) / library:.1f}" for way in ("handle", "http")]
        cells.append(" / ".join(f"{1e3 * result.around(way):.1f}" for way in ("library", "handle")))
        cells += [str(len(result.digests)), str(len(result.rounds))]
        lines.append("| " + " | ".join(cells) + " |")
    return f"A take of {audio_seconds:g} s.\n\n" + "\n".join(lines) + "\n\n" + _stages(found)


def _stages(found: list[tuple[str, Overhead]]) -> str:
    """Milliseconds by stage, library and handle."""
    names = list(found[0][1].stages[0]["library"])
    lines = ["| ms | " + " | ".join(names) + " |", "|---" * (len(names) + 1) + "|"]
    for name, result in found:
        for way in ("library", "handle"):
            cells = [f"{1e3 * result.stage(way, stage):.0f}" for stage in names]
            lines.append(f"| {name}: {way} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def crowds(found: Iterable[tuple[str, Crowd]]) -> str:
    """One line per deployment and number of clients."""
    lines = [
        "| deployment | clients | requests | audio s/s | p50, s | p95, s | p99, s | refused, tried again | lost |"
        " different results |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for name, crowd in found:
        times = [f"{crowd.percentile(share):.2f}" for share in (0.5, 0.95, 0.99)] if crowd.seconds else ["", "", ""]
        cells = [name, crowd.clients, len(crowd.seconds), f"{crowd.throughput:.1f}", *times, crowd.refused]
        lines.append("| " + " | ".join(map(str, [*cells, len(crowd.lost), len(crowd.digests)])) + " |")
    return "\n".join(lines) + "\n"


def memory(found: Iterable[tuple[str, float, dict[str, float]]]) -> str:
    """One line per deployment: until ready, MiB by replica."""
    lines = ["| deployment | ready after, s | MiB in all | MiB by deployment |", "|---|---|---|---|"]
    for name, ready, parts in found:
        shown = ", ".join(f"{part} {mib:.0f}" for part, mib in sorted(parts.items()))
        lines.append(f"| {name} | {ready:.1f} | {sum(parts.values()):.0f} | {shown} |")
    return "\n".join(lines) + "\n"


def _model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.machine()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())
