"""Processes of this machine as /proc tells of them: memory and CPU time by role, and what others use meanwhile."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

_TICKS = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True)
class Process:
    """One process at one moment."""

    pid: int
    title: str
    """Its command line, or what it calls itself."""
    parent: int
    began: int
    """Clock ticks after the machine's start; with ``pid`` it is one process for ever."""
    cpu: float
    """Seconds so far, its waited-for children not included."""
    resident: float
    """MiB."""


def processes() -> dict[int, Process]:
    """All that this user may see."""
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        process = _read(folder)
        if process is not None:
            found[process.pid] = process
    return found


def family(root: int, among: dict[int, Process]) -> Iterator[Process]:
    """A process and all that descend from it."""
    children: dict[int, list[int]] = {}
    for process in among.values():
        children.setdefault(process.parent, []).append(process.pid)
    waiting = [root]
    while waiting:
        pid = waiting.pop()
        if pid in among:
            yield among[pid]
        waiting += children.get(pid, ())


def cpu_by_role(
    before: dict[int, Process], after: dict[int, Process], role: Callable[[Process], str | None]
) -> dict[str, float]:
    """CPU seconds between two looks, by role. Those of processes that ended meanwhile are not known."""
    spent: dict[str, float] = {}
    for pid, process in after.items():
        name = role(process)
        if name is not None:
            earlier = before[pid].cpu if pid in before else 0.0
            spent[name] = spent.get(name, 0.0) + process.cpu - earlier
    return spent


def put(path: Path, data: object) -> None:
    """Data as JSON, at once: whoever reads meanwhile finds the one before."""
    part = path.with_suffix(".part")
    part.write_text(json.dumps(data))
    part.replace(path)


def described() -> dict[str, object]:
    """What figures were taken on."""
    import torch

    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    model = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), "")
    return {
        "cores": os.cpu_count(),
        "model": model or platform.machine(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "load_before": round(os.getloadavg()[0], 2),
    }


def _read(folder: Path) -> Process | None:
    try:
        stat = (folder / "stat").read_text()
        title = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode("utf-8", "replace").strip()
    except OSError:
        return None
    name, _, rest = stat.partition("(")[2].rpartition(")")
    fields = rest.split()
    cpu = (int(fields[11]) + int(fields[12])) / _TICKS
    return Process(
        int(folder.name), title or name, int(fields[1]), int(fields[19]), cpu, int(fields[21]) * _PAGE / 2**20
    )
