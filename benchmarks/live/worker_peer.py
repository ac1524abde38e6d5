"""The living peer's own realtime class (rvc-next) in its own environment: ``worker_peer.py JOB.json``.

``StreamEngine.process`` takes a block and gives a block; it needs no sound device, so nothing of the peer is replaced.
Its context, crossfade, extractor and index share are its defaults. Its offline converter runs beside it.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from rvc_next.engine.convert.offline import OfflineConverter
from rvc_next.engine.convert.params import VoiceParams
from rvc_next.engine.runtime import Runtime
from rvc_next.engine.stream.engine import StreamEngine
from rvc_next.engine.stream.latency import engine_delay_ms
from rvc_next.engine.stream.params import StreamParams

from benchmarks.live.probe import probe, whole
from benchmarks.load import read_job


def main(job_file: str) -> None:
    """As in ``worker_ours.py``."""
    job = read_job(job_file)
    files = job["files"]
    runtime = Runtime(files["peer_assets"], device="cpu", precision="fp32")
    runtime.hubert()
    runtime.f0("rmvpe")
    index = runtime.index(files["index"])
    # Two of the voice: the realtime engine folds its weight norms, which the offline converter does not.
    offline, voice = OfflineConverter(runtime), runtime.voice(files["voice"])
    take, low = np.load(job["clip"]), np.load(job["clip_16k"])
    first = low[: round(job["offline_seconds"] * 16_000)]
    seconds = len(first) / 16_000
    rows: list[dict[str, Any]] = [{"way": "offline", "rounds": []}]
    for _ in range(job["rounds"]):
        rows[0]["rounds"].append(whole(lambda: offline.convert(first, voice, VoiceParams(), index=index), seconds))
    engines: list[Callable[[], dict[str, Any]]] = []
    for block_ms in job["recompute"]:
        params = StreamParams(block_ms=block_ms)
        engine = StreamEngine(runtime, voice, VoiceParams(), params, 48_000, index=index)
        rows.append({"way": "recompute", "block_ms": block_ms, "delay_ms": engine_delay_ms(params), "rounds": []})
        engines.append(_running(engine, take, job))
    for _ in range(job["rounds"]):
        for row, measure in zip(rows[1:], engines, strict=True):
            row["rounds"].append(measure())
            Path(job["report"]).write_text(json.dumps(rows))


def _running(engine: StreamEngine, take: Any, job: dict[str, Any]) -> Callable[[], dict[str, Any]]:
    return lambda: probe(engine.process, take, engine.block_size, job["budget"], job["least"])


if __name__ == "__main__":
    main(sys.argv[1])
