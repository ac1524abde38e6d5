"""``python -m benchmarks.serve``: overhead of the graph, clients at once, placements, memory; tables to build/bench."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.serve import clients, overhead, report
from benchmarks.serve.running import Service, serving
from benchmarks.serve.takes import write_take
from serve_apps.config import ServeConfig

BUILD = Path(__file__).parents[2] / "build" / "bench"


@dataclass(frozen=True)
class Case:
    """A deployment to be measured: its name, its configuration, its threads per replica."""

    name: str
    threads: int
    changes: dict[str, Any]


_SHARE = {"cpus": 0.3}
CASES = {
    "fused": Case("fused, 1 replica, 2 threads", 2, {"threads": 2}),
    "fused-1": Case("fused, 1 replica, 1 thread", 1, {"threads": 1}),
    "fused-2x1": Case("fused, 2 replicas, 1 thread", 1, {"threads": 1, "converter": {"replicas": 2, "cpus": 0.8}}),
    "split": Case(
        "split, 2 threads",
        2,
        {
            "placement": "split",
            "threads": 2,
            **dict.fromkeys(("converter", "content", "pitch", "acoustic", "vocoder"), _SHARE),
        },
    ),
    "split-1": Case(
        "split, 1 thread",
        1,
        {
            "placement": "split",
            "threads": 1,
            **dict.fromkeys(("converter", "content", "pitch", "acoustic", "vocoder"), _SHARE),
        },
    ),
    "narrow": Case(
        "fused, 2 threads, at most 2 + 2 at once",
        2,
        {"threads": 2, "limits": {"queued": 2}, "converter": {"concurrency": 2}},
    ),
}


def main() -> int:
    """Print tables and keep them; 1 if a request was lost or bytes differ."""
    options = _options()
    BUILD.mkdir(parents=True, exist_ok=True)
    take = write_take(BUILD / "serve" / "take.wav", options.seconds)
    found = Findings(report.machine(), options.seconds)
    for name in options.cases:
        _measure(CASES[name], take, options, found)
        found.keep()  # a long run that is cut short is not lost
    print(found.text())
    for name, crowd in found.crowds:
        for reason in crowd.lost:
            print(f"lost: {name}, {crowd.clients} clients: {reason}", file=sys.stderr)
    return 0 if found.good() else 1


@dataclass
class Findings:
    """What was measured so far."""

    machine: str
    seconds: float
    costs: list[tuple[str, overhead.Overhead]] = field(default_factory=list)
    crowds: list[tuple[str, clients.Crowd]] = field(default_factory=list)
    memory: list[tuple[str, float, dict[str, float]]] = field(default_factory=list)

    def text(self) -> str:
        """The tables."""
        parts = [self.machine + "\n"]
        if self.costs:
            parts.append(report.overhead(self.costs, self.seconds))
        if self.crowds:
            parts.append(report.crowds(self.crowds))
        return "\n".join([*parts, report.memory(self.memory)])

    def keep(self) -> None:
        """Tables and raw figures under build/bench."""
        (BUILD / "serve.md").write_text(self.text())
        (BUILD / "serve.json").write_text(json.dumps(asdict(self), indent=1, default=sorted))

    def good(self) -> bool:
        """Whether nothing was lost, and the same bytes came of everything."""
        same = all(len(cost.digests) == 1 for _, cost in self.costs)
        return same and all(len(crowd.digests) == 1 and not crowd.lost for _, crowd in self.crowds)


def _measure(case: Case, take: Path, options: argparse.Namespace, found: Findings) -> None:
    tell = _teller(case.name)
    with serving(**case.changes) as service:
        tell("is ready")
        if options.rounds:
            cost = overhead.measure(service, _config(service, case), take, case.threads, options.rounds)
            found.costs.append((case.name, cost))
            tell("cost measured")
        for number in options.clients:
            requests = max(options.least, options.each * number)
            crowd = clients.measure(service.url, take, options.seconds, number, requests)
            found.crowds.append((case.name, crowd))
            tell(f"{number} clients measured")
        found.memory.append((case.name, service.ready_seconds, service.memory()))


def _config(service: Service, case: Case) -> ServeConfig:
    """What the service was started with."""
    return ServeConfig.model_validate({"store": str(service.folder / "store"), **case.changes})


def _teller(name: str) -> Callable[[str], None]:
    def tell(what: str) -> None:
        print(f"{name}: {what}", file=sys.stderr, flush=True)

    return tell


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.serve", description=__doc__)
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--seconds", type=float, default=10.0, help="length of the take")
    parser.add_argument("--rounds", type=int, default=20, help="of library, handle and HTTP in turn; 0 leaves them out")
    parser.add_argument("--clients", nargs="*", type=int, default=[1, 2, 4, 8, 16], help="at once")
    parser.add_argument("--each", type=int, default=3, help="requests per client")
    parser.add_argument("--least", type=int, default=12, help="requests of a measurement, at least")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
