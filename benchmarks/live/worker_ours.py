"""Our side of ``compute.py`` in a fresh process: ``worker_ours.py JOB.json`` writes rows to the job's ``report``.

Threads come from OMP_NUM_THREADS, as they do for the peer.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.live.probe import blocks_of, probe, whole
from benchmarks.live.recompute import Recompute
from benchmarks.live.voices import live_converter, offline_converter
from benchmarks.load import Watch, read_job
from rocktop_ray.live.stream import LiveStream, feed_many
from rocktop_ray.protocols import TAKE_RATE, Array
from rocktop_ray.settings import ConvertSettings


def main(job_file: str) -> None:
    """All cases of the job in turn, round by round, so that they meet the same minutes of the machine."""
    job = read_job(job_file)
    offline = offline_converter(job["voice"], job["files"])
    settings = ConvertSettings(unvoiced="interpolate")
    take = np.load(job["clip"])
    first = take[: round(job["offline_seconds"] * TAKE_RATE)]
    cases: list[tuple[dict[str, Any], Callable[[], dict[str, Any]]]] = [
        ({"way": "offline"}, lambda: whole(lambda: offline.convert(first, settings), len(first) / TAKE_RATE))
    ]
    for case in job["streams"]:
        converter = live_converter(job["voice"], offline, case)
        block = case["block_ms"] * TAKE_RATE // 1000
        stream = LiveStream(converter, settings, multiple=block)
        way = "stream, in real time" if case.get("paced") else "stream"
        facts = {"way": way, **case, "delay_ms": stream.delay / TAKE_RATE * 1e3, "exact": converter.exact}
        cases.append((facts, _streaming(stream, take, block, job, bool(case.get("paced")))))
    for block_ms in job["recompute"]:
        block = block_ms * TAKE_RATE // 1000
        again = Recompute(offline, settings, block_ms // 10)
        facts = {"way": "recompute", "block_ms": block_ms, "delay_ms": again.delay / TAKE_RATE * 1e3}
        cases.append((facts, _recomputing(again, take, block, job)))
    if job["batch"] is not None:
        converter = live_converter(job["voice"], offline, job["batch"])
        block = job["batch"]["block_ms"] * TAKE_RATE // 1000
        for sessions in job["batch"]["sessions"]:
            facts = {"way": "batch", "block_ms": job["batch"]["block_ms"], "sessions": sessions}
            streams = [LiveStream(converter, settings, multiple=block) for _ in range(sessions)]
            cases.append((facts, _together(streams, take, block, job)))
    rows = [{**facts, "rounds": []} for facts, _ in cases]
    offline.convert(take[: 2 * TAKE_RATE], settings)
    for _ in range(job["rounds"]):
        for row, (_, measure) in zip(rows, cases, strict=True):
            row["rounds"].append(measure())
            Path(job["report"]).write_text(json.dumps(rows))


def _streaming(
    stream: LiveStream, take: Array, block: int, job: dict[str, Any], paced: bool
) -> Callable[[], dict[str, Any]]:
    return lambda: probe(stream.feed, take, block, job["budget"], job["least"], paced=paced)


def _recomputing(again: Recompute, take: Array, block: int, job: dict[str, Any]) -> Callable[[], dict[str, Any]]:
    return lambda: probe(again.feed, take, block, job["budget"], job["least"])


def _together(streams: list[LiveStream], take: Array, block: int, job: dict[str, Any]) -> Callable[[], dict[str, Any]]:
    """A block of each stream at once; every stream sings from another place of the take."""

    def measure() -> dict[str, Any]:
        sources = [blocks_of(np.roll(take, -number * 7 * block), block) for number in range(len(streams))]
        watch = Watch()
        found = probe(lambda _: feed_many(streams, [next(each) for each in sources]), take, block, job["budget"], 5)
        return {**found, "per_second": found["per_second"] / len(streams), "foreign": watch.read()["foreign"]}

    return measure


if __name__ == "__main__":
    main(sys.argv[1])
