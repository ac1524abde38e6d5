"""What live audio costs, beside offline and beside the peers' scheme: ``python -m benchmarks.live.compute``.

For the bundle and for the stock v2 48k voice (random weights, as ``benchmarks.compare`` has them), each in fresh
processes. A round beside which others used the processor does not count; see benchmarks/README.md.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from benchmarks.compare import BUILD, ROOT, _files, _peer_python, _resampled
from benchmarks.live.figures import linear_cost, sessions_that_fit
from benchmarks.live.machine import described
from benchmarks.live.takes import sung
from benchmarks.live.voices import VOICES
from benchmarks.load import MAX_FOREIGN
from rocktop_ray.live.layout import LiveLayout

FOLDER = BUILD / "live"
BLOCKS = (20, 40, 100, 160, 240)
"""Milliseconds."""
SHARE = 0.7
"""Of the time that may be promised to sessions, as ``live.load`` has it by default."""


@dataclass(frozen=True)
class Plan:
    """How long is measured: rounds, seconds offline, seconds per case and round, blocks at least."""

    rounds: int
    offline_seconds: float
    budget: float
    least: int


FULL, QUICK = Plan(3, 10.0, 5.0, 10), Plan(1, 4.0, 1.0, 4)


def main() -> int:
    """Measure, print a table, keep it with the raw figures under ``build/bench/live``; 1 if nothing quiet was found."""
    options = _options()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # a worker does not outlive this process
    FOLDER.mkdir(parents=True, exist_ok=True)
    plan = QUICK if options.quick else FULL
    results: list[dict[str, Any]] = []
    for who in options.who:
        for threads in options.threads:
            print(f"{who}, {threads} threads ...", file=sys.stderr, flush=True)
            job = {**_job(who, options.blocks, options.batch and threads == 1), **vars(plan)}
            rows = _measured(who, threads, job)
            results += [{"who": who, "threads": threads, **row} for row in rows]
            (FOLDER / "compute.json").write_text(json.dumps({"machine": described(), "rows": results}, indent=1))
    text = markdown(results)
    (FOLDER / "compute.md").write_text(text)
    print(text)
    return 0 if all(_quiet(row) for row in results) else 1


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.live.compute", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one short round")
    parser.add_argument("--who", nargs="+", choices=(*VOICES, "peer"), default=[*VOICES, "peer"])
    parser.add_argument("--threads", nargs="+", type=int, default=[1, 2])
    parser.add_argument("--blocks", nargs="+", type=int, default=list(BLOCKS), help="ms, multiples of 10")
    parser.add_argument("--no-batch", dest="batch", action="store_false", help="leave out several sessions at once")
    return parser.parse_args()


def _job(who: str, blocks: list[int], batch: bool) -> dict[str, Any]:
    """What a worker is to do. Hops are the block where that is an even number of frames, else what a service has."""
    clip, low = FOLDER / "clip.npy", FOLDER / "clip_16k.npy"
    take = sung(12.0, 48_000)
    np.save(clip, take)
    np.save(low, _resampled(take, 48_000, 16_000))
    usual = LiveLayout()
    hops = {block: block // 10 if block % 20 == 0 else usual.hop for block in blocks}
    streams = [{"block_ms": block, "hop": hop, "ahead": usual.ahead} for block, hop in hops.items()]
    if who == "bundle":
        streams += [{**case, "paced": True} for case in streams if case["block_ms"] in (20, 40)]
        streams += [
            {"block_ms": ms, "hop": ms // 10, "ahead": ms // 10, "windows": True} for ms in (40, 100) if ms in blocks
        ]
    together = 4 if who == "bundle" else usual.hop
    sessions = {"block_ms": together * 10, "hop": together, "ahead": usual.ahead, "sessions": [1, 2, 4, 8]}
    return {
        "voice": who,
        "files": _files(),
        "clip": str(clip),
        "clip_16k": str(low),
        "streams": [] if who == "peer" else streams,
        "recompute": blocks,
        "batch": sessions if batch and who != "peer" else None,
        "report": str(FOLDER / f"compute-{who}.json"),
    }


def _measured(who: str, threads: int, job: dict[str, Any]) -> list[dict[str, Any]]:
    job_file = FOLDER / f"compute-{who}.job.json"
    job_file.write_text(json.dumps(job))
    python = str(_peer_python()) if who == "peer" else sys.executable
    script = ROOT / "benchmarks" / "live" / ("worker_peer.py" if who == "peer" else "worker_ours.py")
    counts = {name: str(threads) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS")}
    environment = {**os.environ, **counts, "PYTHONPATH": str(ROOT)}
    subprocess.run([python, str(script), str(job_file)], check=True, env=environment, stdout=subprocess.DEVNULL)
    return list(json.loads(Path(job["report"]).read_text()))


def markdown(results: list[dict[str, Any]]) -> str:
    """Seconds per second of audio and milliseconds per block, medians of the rounds that count; sessions per core."""
    head = "| who | threads | way | block, ms | hop, ms | stages over windows | delay and block, ms |"
    lines = [
        head + " s per s of audio | against offline | block: p50 / p95, ms | real time | foreign |",
        "|" + "---|" * 12,
    ]
    offline = {(row["who"], row["threads"]): _typical(row, "per_second") for row in results if row["way"] == "offline"}
    lines += [_line(row, offline) for row in results if row["way"] != "batch"]
    text = "\n".join(lines) + "\n"
    batches: dict[tuple[str, int], list[dict[str, Any]]] = {}
    for row in results:
        if row["way"] == "batch":
            batches.setdefault((row["who"], row["threads"]), []).append(row)
    if batches:
        text += "\n" + _sessions(batches)
    return text


def _line(row: dict[str, Any], offline: dict[tuple[str, int], float]) -> str:
    cost = _typical(row, "per_second")
    cells = [row["who"], str(row["threads"]), row["way"]]
    if row["way"] == "offline":
        cells += [""] * 4 + [f"{cost:.3f}", "1", "", ""]
    else:
        windows = ("none" if row["exact"] else "some") if row["way"].startswith("stream") else "all"
        hop = str(row["hop"] * 10) if "hop" in row else ""
        cells += [str(row["block_ms"]), hop, windows, f"{row['delay_ms'] + row['block_ms']:.0f}", f"{cost:.3f}"]
        cells += [f"{cost / offline[row['who'], row['threads']]:.2f}"]
        cells += [f"{_typical(row, 'p50_ms'):.1f} / {_typical(row, 'p95_ms'):.1f}", "yes" if cost < 1 else "**no**"]
    foreign = max(found["foreign"] for found in _counted(row) or row["rounds"])
    cells.append(f"{foreign:.2f}" + ("" if _quiet(row) else " (loaded: does not count)"))
    return "| " + " | ".join(cells) + " |"


def _sessions(batches: dict[tuple[str, int], list[dict[str, Any]]]) -> str:
    lines = [
        "| who | threads | block, ms | sessions at once | ms for a block of each | ms each | fixed + each, ms |"
        f" sessions in {SHARE:.0%} of the time | in all of it |",
        "|" + "---|" * 9,
    ]
    for (who, threads), rows in batches.items():
        times = [_typical(row, "p50_ms") for row in rows]
        fixed, each = linear_cost([row["sessions"] for row in rows], times)
        fits = [str(sessions_that_fit(fixed, each, rows[0]["block_ms"], share)) for share in (SHARE, 1.0)]
        for row, time in zip(rows, times, strict=True):
            last = [f"{fixed:.2f} + {each:.2f}", *fits] if row is rows[-1] else [""] * 3
            cells = [who, threads, row["block_ms"], row["sessions"], f"{time:.1f}", f"{time / row['sessions']:.1f}"]
            lines.append("| " + " | ".join(map(str, [*cells, *last])) + " |")
    return "\n".join(lines) + "\n"


def _typical(row: dict[str, Any], name: str) -> float:
    return float(median(found[name] for found in _counted(row) or row["rounds"]))


def _counted(row: dict[str, Any]) -> list[dict[str, Any]]:
    return [found for found in row["rounds"] if found["foreign"] <= MAX_FOREIGN]


def _quiet(row: dict[str, Any]) -> bool:
    return bool(_counted(row))


if __name__ == "__main__":
    sys.exit(main())
