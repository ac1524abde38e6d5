"""``python -m benchmarks.serve``: overhead of the graph, clients at once, placements, memory; tables to build/bench."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
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


_HALF = {"cpus": 0.4}
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
            **dict.fromkeys(("converter", "content", "pitch", "acoustic", "vocoder"), _HALF),
        },
    ),
    "split-1": Case(
        "split, 1 thread",
        1,
        {
            "placement": "split",
            "threads": 1,
            **dict.fromkeys(("converter", "content", "pitch", "acoustic", "vocoder"), _HALF),
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
    costs: list[tuple[str, overhead.Overhead]] = []
    crowds: list[tuple[str, clients.Crowd]] = []
    memory: list[tuple[str, float, dict[str, float]]] = []
    facts = report.machine()
    for name in options.cases:
        case = CASES[name]
        tell = _teller(case.name)
        with serving(**case.changes) as service:
            tell("is ready")
            if options.rounds:
                costs.append(
                    (case.name, overhead.measure(service, _config(service, case), take, case.threads, options.rounds))
                )
                tell("cost measured")
            for number in options.clients:
                requests = max(options.least, options.each * number)
                crowds.append((case.name, clients.measure(service.url, take, options.seconds, number, requests)))
                tell(f"{number} clients measured")
            memory.append((case.name, service.ready_seconds, service.memory()))
    text = f"{facts}\n\n" + "\n".join(
        part
        for part in (
            report.overhead(costs, options.seconds) if costs else "",
            report.crowds(crowds) if crowds else "",
            report.memory(memory),
        )
        if part
    )
    (BUILD / "serve.md").write_text(text)
    raw = {
        "costs": [(name, asdict(cost)) for name, cost in costs],
        "crowds": [(name, asdict(crowd)) for name, crowd in crowds],
    }
    (BUILD / "serve.json").write_text(json.dumps(raw, indent=1, default=sorted))
    print(text)
    for name, crowd in crowds:
        for reason in crowd.lost:
            print(f"lost: {name}, {crowd.clients} clients: {reason}", file=sys.stderr)
    same = all(len(cost.digests) == 1 for _, cost in costs) and all(len(crowd.digests) == 1 for _, crowd in crowds)
    return 0 if same and not any(crowd.lost for _, crowd in crowds) else 1


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
