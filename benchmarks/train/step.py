"""Our training step beside the peer trainer's, stock v2 48k: ``python -m benchmarks.train.step``.

Both sides run at the same time but compute in turn, step by step, from the same weights, examples and random draws, so
they meet the same hours of the machine, and their losses can be compared.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

from benchmarks.compare import BUILD, ROOT, _peer_python
from benchmarks.load import MAX_FOREIGN

FOLDER = BUILD / "train"
WARM_UP = 1
"""Steps that do not count: the first one fills memory and makes the optimizers' states."""


@dataclass(frozen=True)
class Case:
    """Examples per step, threads, arithmetic, steps that count."""

    batch: int
    threads: int
    precision: str
    steps: int


FULL = (
    Case(4, 2, "fp32", 5),
    Case(4, 1, "fp32", 3),
    Case(1, 2, "fp32", 5),
    Case(1, 1, "fp32", 3),
    Case(4, 2, "bf16", 3),
)
QUICK = (Case(1, 2, "fp32", 3),)


def main() -> int:
    """Measure, print a table, keep all figures in ``build/bench/train/step.json``; 1 if the machine was not quiet."""
    options = _options()
    FOLDER.mkdir(parents=True, exist_ok=True)
    results = []
    for case in _cases(options):
        print(f"{case} ...", file=sys.stderr, flush=True)
        results.append({**asdict(case), "device": options.device, **_measured(case, options)})
        (FOLDER / "step.json").write_text(json.dumps(results, indent=1))
    table = markdown(results)
    (FOLDER / "step.md").write_text(table)
    print(table)
    return 0 if all(_quiet(result) for result in results) else 1


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="batch 1, 2 threads: about a minute")
    parser.add_argument("--batch", type=int, help="only this case, with --threads, --precision and --steps")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--precision", default="fp32", choices=("fp32", "bf16", "fp16"))
    parser.add_argument("--steps", type=int, default=3, help="that count")
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--no-peer", action="store_true", help="only our own figures")
    parser.add_argument("--floors", default="peer", choices=("peer", "own"), help="of our spectrograms; see README.md")
    return parser.parse_args()


def _cases(options: argparse.Namespace) -> tuple[Case, ...]:
    if options.batch:
        return (Case(options.batch, options.threads, options.precision, options.steps),)
    return QUICK if options.quick else FULL


def _measured(case: Case, options: argparse.Namespace) -> dict[str, Any]:
    """Both sides' steps, in turn."""
    steps = case.steps + WARM_UP
    job = {**asdict(case), "steps": steps, "device": options.device, "peer_floors": options.floors == "peer"}
    shared = FOLDER / f"shared-{case.batch}"
    shared.mkdir(exist_ok=True)
    pythons = {"ours": sys.executable} | ({} if options.no_peer else {"peer": str(_peer_python())})
    with ExitStack() as stack:
        sides, said = {}, {}
        for name, python in pythons.items():
            sides[name] = stack.enter_context(_worker(python, name, {**job, "shared": str(shared)}, case))
            said[name] = _asked(sides[name], "")  # ready; ours has then written what the peer reads
        runs: dict[str, list[dict[str, Any]]] = {name: [] for name in sides}
        for number in range(steps):
            for name in sorted(sides, reverse=bool(number % 2)):  # neither side always follows the other
                runs[name].append(_asked(sides[name], "go\n"))
    return {"runs": runs, "peer_precision": said.get("peer", {}).get("precision")}


@contextmanager
def _worker(python: str, side: str, job: dict[str, Any], case: Case) -> Iterator[subprocess.Popen[str]]:
    file = FOLDER / f"{side}.job.json"
    file.write_text(json.dumps(job))
    threads = {name: str(case.threads) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS")}
    command = [python, str(ROOT / "benchmarks" / "train" / f"worker_{side}.py"), str(file)]
    environment = {**os.environ, **threads, "PYTHONPATH": str(ROOT)}
    with (
        (FOLDER / f"{side}.log").open("w") as log,
        subprocess.Popen(
            command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True
        ) as process,
    ):
        try:
            yield process
            assert process.stdin is not None
            process.stdin.close()
            process.wait(60)
        finally:
            process.kill()


def _asked(process: subprocess.Popen[str], line: str) -> dict[str, Any]:
    """The answer to a request; whatever else a worker prints is passed over."""
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(line)
    process.stdin.flush()
    for said in process.stdout:
        if said.startswith("{"):
            return dict(json.loads(said))
    raise SystemExit(f"a worker ended early: see {FOLDER.relative_to(ROOT)}/*.log")


def markdown(results: list[dict[str, Any]]) -> str:
    """Seconds per step (median of the quiet ones), how many times faster, and how far the losses lie apart."""
    lines = [
        "| batch | threads | precision | who | s per step | steps/s | audio s/s | peak MiB | foreign | counted |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for result in results:
        for name, runs in result["runs"].items():
            counted = _counted(runs) or runs[WARM_UP:]
            seconds = median(run["seconds"] for run in counted)
            precision = result["precision"] if name == "ours" else result["peer_precision"]
            mark = "" if _counted(runs) else " (loaded machine)"
            lines.append(
                f"| {result['batch']} | {result['threads']} | {precision} | {name} | {seconds:.2f}{mark} "
                f"| {1 / seconds:.4f} | {result['batch'] * 0.36 / seconds:.3f} "
                f"| {max(run['resident'] for run in runs):.0f} | {max(run['foreign'] for run in counted):.2f} "
                f"| {len(_counted(runs))} of {len(runs) - WARM_UP} |"
            )
    for result in results:
        if "peer" in result["runs"]:
            lines += ["", _compared(result)]
    return "\n".join(lines) + "\n"


def _compared(result: dict[str, Any]) -> str:
    ours, peer = result["runs"]["ours"], result["runs"]["peer"]
    ratios = [b["seconds"] / a["seconds"] for a, b in list(zip(ours, peer, strict=True))[WARM_UP:]]
    seconds = [median(run["seconds"] for run in _counted(runs) or runs[WARM_UP:]) for runs in (ours, peer)]
    gaps = []
    for number in (0, len(ours) - 1):
        pairs = {name: (ours[number]["losses"][name], peer[number]["losses"][name]) for name in ours[number]["losses"]}
        each = ", ".join(f"{name} {abs(a - b) / abs(b):.0e}" for name, (a, b) in pairs.items())
        gaps.append(f"step {number + 1}: {each}")
    return (
        f"batch {result['batch']}, {result['threads']} threads, {result['precision']}: **{seconds[1] / seconds[0]:.2f} "
        f"times faster** (pairs {min(ratios):.2f} to {max(ratios):.2f}). Losses apart, relative: {'; '.join(gaps)}."
    )


def _counted(runs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [run for run in runs[WARM_UP:] if run["foreign"] <= MAX_FOREIGN]


def _quiet(result: dict[str, Any]) -> bool:
    return all(len(_counted(runs)) == result["steps"] for runs in result["runs"].values())


if __name__ == "__main__":
    sys.exit(main())
