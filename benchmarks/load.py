"""Runs with a clock and a look at what else the machine does: beside other work a figure is worth nothing."""

from __future__ import annotations

import json
import os
import resource
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

MAX_FOREIGN = 0.1
"""Cores that others may use during a run that counts."""


def read_job(path: str) -> dict[str, Any]:
    """What a worker is asked to do (see ``compare.py``)."""
    return dict(json.loads(Path(path).read_text()))


class Watch:
    """Time and foreign load since it was made."""

    def __init__(self) -> None:
        self._busy, self._own, self._began = busy_seconds(), _own(), time.perf_counter()

    def read(self) -> dict[str, float]:
        """``seconds``, and ``foreign``: cores that others used meanwhile (children that have ended count as own)."""
        seconds = time.perf_counter() - self._began
        return {"seconds": seconds, "foreign": max(0.0, (busy_seconds() - self._busy) - (_own() - self._own)) / seconds}


class Meter:
    """Measures a worker's runs until enough of them were quiet, and writes the job's report."""

    def __init__(self, job: dict[str, Any], load_seconds: float, imported_mib: float) -> None:
        self.job = job
        self.report: dict[str, Any] = {
            "load_seconds": load_seconds,
            "imported_mib": imported_mib,
            "loaded_mib": resident_mib(),
        }

    def measure(self, run: Callable[[], dict[str, float]]) -> None:
        """Call ``run``, which returns seconds by stage, for the job's number of quiet runs, within its tries."""
        runs: list[dict[str, Any]] = []
        while sum(made["foreign"] <= MAX_FOREIGN for made in runs) < self.job["runs"] and len(runs) < self.job["tries"]:
            watch = Watch()
            stages = run()
            runs.append({**watch.read(), "stages": stages})
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        Path(self.job["report"]).write_text(json.dumps({**self.report, "measured": runs, "peak_mib": peak}))


def resident_mib() -> float:
    """Resident memory of this process."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def busy_seconds() -> float:
    """CPU seconds of the whole machine since boot, without idling and waiting for disks."""
    user, nice, system, _, _, irq, softirq, *_ = map(int, Path("/proc/stat").read_text().split("\n")[0].split()[1:])
    return (user + nice + system + irq + softirq) / os.sysconf("SC_CLK_TCK")


def _own() -> float:
    used = os.times()
    return used.user + used.system + used.children_user + used.children_system
