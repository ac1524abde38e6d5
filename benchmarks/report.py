"""Figures to a Markdown table."""

from __future__ import annotations

from statistics import median
from typing import Any

from benchmarks.load import MAX_FOREIGN

STAGES = ("content", "pitch", "retrieval", "voice", "other")


def quiet(result: dict[str, Any]) -> bool:
    """Whether as many runs were undisturbed as were asked for."""
    return len(_counted(result)) >= result["runs_wanted"]


def markdown(results: list[dict[str, Any]], snr_db: dict[int, float]) -> str:
    """Seconds per second of audio (medians of the quiet runs) and peak memory; then how much better we are."""
    head = ["clip", "threads", "who", "whole", *STAGES, "peak MiB", "loaded MiB", "load s", "runs", "foreign"]
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    lines += ["| " + " | ".join(_row(result)) + " |" for result in results]
    pairs: dict[tuple[int, int], dict[str, dict[str, Any]]] = {}
    for result in results:
        pairs.setdefault((result["seconds"], result["threads"]), {})[result["who"]] = result
    for (seconds, threads), pair in pairs.items():
        if len(pair) == 2:
            faster = _whole(pair["peer"]) / _whole(pair["ours"])
            smaller = pair["peer"]["peak_mib"] / pair["ours"]["peak_mib"]
            lines += [
                "",
                f"{seconds} s, {threads} threads: {faster:.2f} times faster, {smaller:.2f} times less memory.",
            ]
    lines += [f"\nSame output, first 10 s of the {seconds} s clip: {db:.1f} dB SNR." for seconds, db in snr_db.items()]
    return "\n".join(lines) + "\n"


def _row(result: dict[str, Any]) -> list[str]:
    counted = _counted(result)
    stages = [median(run["stages"].get(stage, 0.0) for run in counted or result["measured"]) for stage in STAGES]
    foreign = max(run["foreign"] for run in counted or result["measured"])
    return [
        f"{result['seconds']} s",
        str(result["threads"]),
        result["who"],
        f"{_whole(result) / result['seconds']:.3f}" + ("" if quiet(result) else " (loaded machine: does not count)"),
        *(f"{stage / result['seconds']:.4f}" for stage in stages),
        f"{result['peak_mib']:.0f}",
        f"{result['loaded_mib']:.0f}",
        f"{result['load_seconds']:.1f}",
        f"{len(counted)} of {len(result['measured'])}",
        f"{foreign:.2f}",
    ]


def _whole(result: dict[str, Any]) -> float:
    return median(run["seconds"] for run in _counted(result) or result["measured"])


def _counted(result: dict[str, Any]) -> list[dict[str, Any]]:
    return [run for run in result["measured"] if run["foreign"] <= MAX_FOREIGN]
