"""Loading for training: how fast, how much memory, over two sizes of dataset: ``python -m benchmarks.train.loading``.

Nothing is computed between batches, so this is what the loader can give; a step that needs less never waits. Units are
noise: what networks make of a take does not change what reading it costs.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.compare import BUILD, ROOT
from benchmarks.load import Watch, resident_mib
from benchmarks.train import takes

FOLDER = BUILD / "train" / "loading"
NEEDED = 10.0
"""Batches of 4 per second that a fast GPU is taken to want."""


def main() -> None:
    """Each size and number of threads in a process of its own."""
    options = _options()
    if options.child:
        print(json.dumps(_drained(Path(options.child), options.threads, options.steps)))
        return
    lines = [
        "| hours | slices | threads | batches/s | CPU s a batch | open s | plan s | rest MiB | peak MiB | foreign |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    results = []
    for hours in options.hours:
        place = _dataset(hours)
        for threads in (1, 2):
            command = [sys.executable, "-m", "benchmarks.train.loading", "--child", str(place)]
            command += ["--threads", str(threads), "--steps", str(options.steps)]
            said = subprocess.run(
                command, check=True, cwd=ROOT, env={**os.environ, "OMP_NUM_THREADS": "1"}, stdout=subprocess.PIPE
            )
            found = {"hours": hours, "threads": threads, **json.loads(said.stdout)}
            results.append(found)
            lines.append(
                f"| {hours:g} | {found['slices']} | {threads} | {found['rate']:.1f} | {found['cpu']:.4f} "
                f"| {found['open']:.2f} | {found['plan']:.3f} | {found['rest']:.0f} | {found['peak']:.0f} "
                f"| {found['foreign']:.2f} |"
            )
    FOLDER.mkdir(parents=True, exist_ok=True)
    (FOLDER / "loading.json").write_text(json.dumps(results, indent=1))
    slowest = min(result["rate"] for result in results)
    lines += ["", f"Slowest: {slowest:.1f} batches of 4 per second; a GPU at {NEEDED:g} steps/s needs {NEEDED:g}."]
    print("\n".join(lines))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--hours", type=float, nargs="+", default=[0.1, 1.0], help="of audio in each dataset")
    parser.add_argument("--steps", type=int, default=100, help="batches that are drawn")
    parser.add_argument("--threads", type=int, default=1, help=argparse.SUPPRESS)
    parser.add_argument("--child", help=argparse.SUPPRESS)
    return parser.parse_args()


def _dataset(hours: float) -> Path:
    """A dataset of so many hours, made on first use."""
    from rocktop_ray.store.settings import StorageSettings
    from rocktop_ray.store.storage import open_storage
    from train_loops.dataset.build import build_dataset
    from train_loops.dataset.config import DatasetConfig
    from train_loops.dataset.features import Builders
    from train_loops.dataset.runners import LocalRunner
    from train_loops.dataset.workers import Job

    count = max(3, round(hours * 3600 / takes.SECONDS))
    source, place = takes.recordings(FOLDER / f"takes-{count}", count), FOLDER / f"set-{count}"
    reach = StorageSettings.from_environment()
    config = DatasetConfig.from_mapping({"encoder": "noise", "pitch": "steady"})
    builders = Builders(takes.encoder, takes.extractor)
    build_dataset(
        Job(open_storage(source, reach), open_storage(place, reach), config, "cpu", 1, builders), LocalRunner()
    )
    return place


def _drained(place: Path, threads: int, steps: int) -> dict[str, Any]:
    """Draw so many batches of the stock configuration as fast as they come."""
    from rocktop_ray.config.training import LoaderConfig
    from train_loops.dataset.reader import Dataset
    from train_loops.rvc.loader import Loader, plan_for
    from train_loops.rvc.recipe import stock

    began = time.perf_counter()
    data = Dataset.open(place).training
    opened = time.perf_counter() - began
    recipe = replace(stock("v2-48k"), batch_size=4)
    plan = plan_for(data, recipe)
    began = time.perf_counter()
    plan.epoch(0)
    planned = time.perf_counter() - began
    loader = Loader(data, plan, recipe, LoaderConfig(threads=threads))
    with loader.walk(0, range) as batches:
        for _ in range(5):
            next(batches)
        rest, watch, cpu = resident_mib(), Watch(), time.process_time()
        for _ in range(steps):
            next(batches)
        used = watch.read()
        cpu = time.process_time() - cpu
    peak = int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) / 1024
    return {
        "slices": len(data),
        "rate": steps / used["seconds"],
        "cpu": cpu / steps,
        "open": opened,
        "plan": planned,
        "rest": rest,
        "peak": peak,
        "foreign": used["foreign"],
    }


if __name__ == "__main__":
    main()
