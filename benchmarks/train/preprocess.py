"""Preprocessing with 1 and 2 workers, and over two sizes: ``python -m benchmarks.train.preprocess``.

The command line itself runs, in a Ray of its own, with the bundle's encoder and FCPE. Two figures each: with everything
(start of Ray, networks loaded, manifest), and the steady rate, from the first part that each worker finished to the
last. What others use of the machine is recorded all the time; efficiency is only worth something without it.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
import uuid
from pathlib import Path
from threading import Event, Thread
from typing import Any

from benchmarks.compare import BUILD, ROOT
from benchmarks.load import busy_seconds
from benchmarks.train import takes

FOLDER = BUILD / "train" / "preprocess"
_TICKS = os.sysconf("SC_CLK_TCK")


def main() -> None:
    """All cases, a table, and the efficiency of two workers."""
    options = _options()
    FOLDER.mkdir(parents=True, exist_ok=True)
    cases = [(options.takes, workers) for workers in options.workers]
    if not options.one_size:
        cases.append((options.takes // 2, options.workers[0]))
    results = [_measured(count, workers) for count, workers in cases]
    (FOLDER / "preprocess.json").write_text(json.dumps(results, indent=1))
    print("| takes | workers | hours an hour, steady | with start | s | largest process, MiB | own cores | foreign |")
    print("|---|---|---|---|---|---|---|---|")
    for found in results:
        print(
            f"| {found['takes']} | {found['workers']} | {found['steady']:.2f} | {found['whole']:.2f} "
            f"| {found['seconds']:.0f} | {found['peak']:.0f} | {found['own']:.2f} | {found['foreign']:.2f} |"
        )
    rates = {found["workers"]: found["steady"] for found in results if found["takes"] == options.takes}
    if len(rates) > 1:
        least, most = min(rates), max(rates)
        print(f"\nEfficiency {least} -> {most} workers: {rates[most] / rates[least] * least / most:.2f} (steady).")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--takes", type=int, default=24, help=f"of {takes.SECONDS:g} s each; also half as many")
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--one-size", action="store_true", help="not also half as many takes")
    return parser.parse_args()


def _measured(count: int, workers: int) -> dict[str, Any]:
    """One run of the command line on an empty target."""
    source, target = takes.recordings(FOLDER / f"takes-{count}", count), FOLDER / f"set-{count}-{workers}"
    shutil.rmtree(target, ignore_errors=True)
    mark = f"ROCKTOP_BENCH_{uuid.uuid4().hex}"
    environment = {**os.environ, mark: "1", "RAY_DATA_DISABLE_PROGRESS_BARS": "1"}
    environment.pop("OMP_NUM_THREADS", None)  # each worker sets its own
    command = [sys.executable, "-m", "train_loops.preprocess", str(source), "--out", str(target), "--no-report"]
    command += ["--encoder", "whisper-base", "--pitch", "fcpe", "--workers", str(workers)]
    print(f"{count} takes, {workers} workers ...", file=sys.stderr, flush=True)
    with _Foreign(mark) as foreign:
        began = time.time()
        with (FOLDER / "run.log").open("w") as log:
            subprocess.run(command, cwd=ROOT, env=environment, check=True, stdout=log, stderr=log)
        seconds = time.time() - began
    ends = sorted(file.stat().st_mtime for file in target.glob("parts/*/*/*.parquet"))
    first, last = ends[workers - 1], ends[-1]
    hours = takes.SECONDS / 3600
    return {
        "takes": count,
        "workers": workers,
        "seconds": seconds,
        "whole": hours * count / (seconds / 3600),
        "steady": hours * (len(ends) - workers) / ((last - first) / 3600),
        **foreign.cores(first, last),
        "peak": foreign.peak,
    }


class _Foreign:
    """Cores that others use, sampled: all but the processes that carry a mark in their environment."""

    def __init__(self, mark: str) -> None:
        self._mark, self._stop = mark.encode(), Event()
        self._own: dict[str, float] = {}
        self._known: dict[str, bool] = {}
        self._samples: list[tuple[float, float, float]] = []
        self.peak = 0.0
        """MiB, the highest that one of the marked processes held."""
        self._thread = Thread(target=self._watch, daemon=True)

    def __enter__(self) -> _Foreign:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def cores(self, first: float, last: float) -> dict[str, float]:
        """Cores that others (``foreign``) and the marked processes (``own``) used from one time to another."""
        inside = [sample for sample in self._samples if first <= sample[0] <= last]
        if len(inside) < 2:
            return {"foreign": float("nan"), "own": float("nan")}
        (began, *before), (ended, *after) = inside[0], inside[-1]
        foreign, own = (max(0.0, (b - a) / (ended - began)) for a, b in zip(before, after, strict=True))
        return {"foreign": foreign, "own": own}

    def _watch(self) -> None:
        while not self._stop.wait(0.25):
            for folder in Path("/proc").glob("[0-9]*"):
                self._look(folder)
            own = sum(self._own.values())
            self._samples.append((time.time(), busy_seconds() - own, own))

    def _look(self, folder: Path) -> None:
        process = folder.name
        try:
            if process not in self._known:
                self._known[process] = self._mark in (folder / "environ").read_bytes() or int(process) == os.getpid()
            if not self._known[process]:
                return
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
            self._own[process] = (int(fields[11]) + int(fields[12])) / _TICKS
            if int(process) != os.getpid():
                peak = (folder / "status").read_text().split("VmHWM:")
                self.peak = max(self.peak, int(peak[1].split()[0]) / 1024) if len(peak) > 1 else self.peak
        except (OSError, ValueError):  # it has ended, or is somebody else's
            self._known.setdefault(process, False)


if __name__ == "__main__":
    main()
