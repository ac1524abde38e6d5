"""The peer's pipeline (rvc-next) in a fresh process of its own environment: ``worker_peer.py JOB.json``.

Its engine classes are called as its own command line does. It takes 16 kHz audio, so resampling is not in its time.
"""

from __future__ import annotations

import functools
import sys
import time
from collections.abc import Callable
from typing import Any

BEGAN = time.perf_counter()

import numpy as np  # noqa: E402
import torch  # noqa: E402
from rvc_next.engine.convert import offline  # noqa: E402
from rvc_next.engine.convert.offline import OfflineConverter  # noqa: E402
from rvc_next.engine.convert.params import VoiceParams  # noqa: E402
from rvc_next.engine.runtime import Runtime  # noqa: E402

from benchmarks.load import Meter, read_job, resident_mib  # noqa: E402


def main(job_file: str) -> None:
    """Load, warm up on the first 10 s without noise (that output is kept), then time runs over the whole clip."""
    job = read_job(job_file)
    imported, files = resident_mib(), job["files"]
    runtime = Runtime(files["peer_assets"], device="cpu", precision="fp32")
    runtime.hubert()
    runtime.f0("rmvpe")
    voice, index = runtime.voice(files["voice"]), runtime.index(files["index"])
    converter = OfflineConverter(runtime)
    meter = Meter(job, time.perf_counter() - BEGAN, imported)
    take = np.load(job["clip_16k"])

    draw = torch.randn_like
    torch.randn_like = lambda like, **options: torch.zeros_like(like)
    wave, _ = converter.convert(np.load(job["first_16k"]), voice, VoiceParams(rms_mix_rate=1), index=index)
    torch.randn_like = draw
    np.save(job["wave"], wave.astype(np.float32) / 32768)

    spent: dict[str, float] = {}
    offline.extract_features = clocked(offline.extract_features, "content", spent)
    offline.offline_f0 = clocked(offline.offline_f0, "pitch", spent)
    offline.blend = clocked(offline.blend, "retrieval", spent)
    voice.net_g.infer = clocked(voice.net_g.infer, "voice", spent)

    def run() -> dict[str, float]:
        spent.clear()
        began = time.perf_counter()
        converter.convert(take, voice, VoiceParams(), index=index)
        whole = time.perf_counter() - began
        return {**spent, "other": whole - sum(spent.values())}

    meter.measure(run)


def clocked(function: Callable[..., Any], name: str, spent: dict[str, float]) -> Callable[..., Any]:
    """The same function, adding its time to ``spent[name]``."""

    @functools.wraps(function)
    def wrapper(*args: Any, **options: Any) -> Any:
        began = time.perf_counter()
        made = function(*args, **options)
        spent[name] = spent.get(name, 0.0) + time.perf_counter() - began
        return made

    return wrapper


if __name__ == "__main__":
    main(sys.argv[1])
