"""The pipeline beside the peer package, on the same take with the same weights: ``python -m benchmarks.compare``.

Every figure comes from a fresh process. A run beside which others used the processor does not count; see README.md.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from benchmarks import report
from rocktop_ray.audio.resample import StreamResampler

ROOT = Path(__file__).parent.parent
BUILD = ROOT / "build" / "bench"
PEER = ROOT / "build" / "bench-peer"
PEER_PACKAGES = ("torch==2.13.0", "rvc-next==0.2.16")
CLIP = ROOT / "assets" / "samples" / "vocadito_10.wav"


@dataclass(frozen=True)
class Case:
    """A clip of so many seconds, so many threads, so many quiet runs."""

    seconds: int
    threads: int
    runs: int


QUICK = (Case(10, 2, 3), Case(60, 2, 1))
FULL = (Case(10, 2, 5), Case(60, 2, 3), Case(10, 1, 3), Case(60, 1, 1))


def main() -> int:
    """Measure, print a table, keep it with the raw figures under ``build/bench``; 1 if the machine was not quiet."""
    options = _options()
    files = _files()
    workers = {"ours": (sys.executable, "worker_ours.py")}
    if not options.no_peer:
        workers["peer"] = (str(_peer_python()), "worker_peer.py")
    cases = [case for case in (QUICK if options.quick else FULL) if options.seconds in (None, case.seconds)]
    results = []
    for case in cases:
        clips = _clips(case.seconds)
        for name, (python, script) in workers.items():
            print(f"{case.seconds} s, {case.threads} threads: {name} ...", file=sys.stderr, flush=True)
            job = {"files": files, **clips, "runs": case.runs, "tries": case.runs + options.retries}
            results.append(
                {"who": name, **_described(case), **_measure(python, script, job, f"{name}-{case.seconds}", case)}
            )
    likeness = {case.seconds: _snr(case.seconds) for case in cases if "peer" in workers}
    (BUILD / "results.json").write_text(json.dumps({"results": results, "snr_db": likeness}, indent=1))
    table = report.markdown(results, likeness)
    (BUILD / "results.md").write_text(table)
    print(table)
    return 0 if all(report.quiet(result) for result in results) else 1


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="2 threads only, fewer runs: about 4 minutes")
    parser.add_argument("--no-peer", action="store_true", help="only our own figures")
    parser.add_argument("--seconds", type=int, choices=(10, 60), help="only clips of this length")
    parser.add_argument(
        "--retries", type=int, default=3, help="more runs per case, to replace those that were not quiet"
    )
    return parser.parse_args()


def _described(case: Case) -> dict[str, int]:
    return {"seconds": case.seconds, "threads": case.threads, "runs_wanted": case.runs}


def _measure(python: str, script: str, job: dict[str, Any], name: str, case: Case) -> dict[str, Any]:
    """One worker's report."""
    job_file = BUILD / f"{name}.job.json"
    job |= {"report": str(BUILD / f"{name}.report.json"), "wave": str(BUILD / f"{name}.npy")}
    job_file.write_text(json.dumps(job))
    threads = {name: str(case.threads) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS")}
    environment = {**os.environ, **threads, "PYTHONPATH": str(ROOT)}
    command = [python, str(ROOT / "benchmarks" / script), str(job_file)]
    subprocess.run(command, check=True, env=environment, stdout=subprocess.DEVNULL)
    return dict(json.loads(Path(job["report"]).read_text()))


def _files() -> dict[str, str]:
    """The goldens' weights (random, but healthy and in the published layout): built once, for both sides."""
    sys.path.insert(0, str(ROOT / "tests"))
    import golden_data

    hubert, rmvpe = golden_data.hubert_folder(), golden_data.rmvpe_file()
    assets = BUILD / "peer_assets"
    (assets / "rmvpe").mkdir(parents=True, exist_ok=True)
    for link, target in ((assets / "hubert_base", hubert), (assets / "rmvpe" / "rmvpe.pt", rmvpe)):
        link.unlink(missing_ok=True)
        link.symlink_to(target)
    files = {"voice": golden_data.voice_file("v2_48k_f0"), "index": golden_data.index_file(), "hubert": hubert}
    return {name: str(path) for name, path in {**files, "rmvpe": rmvpe, "peer_assets": assets}.items()}


def _clips(seconds: int) -> dict[str, str]:
    """The sample take, repeated to the length, at the two rates that the two sides take."""
    audio, rate = soundfile.read(CLIP, dtype="float32")
    mono = audio if audio.ndim == 1 else audio.mean(1)
    take = _resampled(mono, rate, 48_000)
    take = np.resize(take * (0.9 / np.abs(take).max()), seconds * 48_000)
    paths = {}
    # What is compared for likeness is cut before it is resampled, so that both sides hear the same end.
    first = _resampled(take[: 10 * 48_000], 48_000, 16_000)
    for name, clip in (("clip_48k", take), ("clip_16k", _resampled(take, 48_000, 16_000)), ("first_16k", first)):
        paths[name] = str(BUILD / f"{name}-{seconds}.npy")
        np.save(paths[name], clip)
    return paths


def _resampled(audio: np.ndarray, rate: int, wanted: int) -> np.ndarray:
    if rate == wanted:
        return audio
    stream = StreamResampler(rate, wanted)
    return np.concatenate([stream.push(audio), stream.finish()])


def _peer_python() -> Path:
    """The peer's own environment, made on first use."""
    python = PEER / "bin" / "python"
    ready = PEER / ".ready"
    if not ready.exists():
        print(f"installing {' '.join(PEER_PACKAGES)} into {PEER.relative_to(ROOT)} ...", file=sys.stderr, flush=True)
        subprocess.run([sys.executable, "-m", "venv", str(PEER)], check=True)
        subprocess.run([str(python), "-m", "pip", "install", "--quiet", *PEER_PACKAGES], check=True)
        ready.touch()
    return python


def _snr(seconds: int) -> float:
    """Of our first 10 s over the peer's, both without noise, in dB; the peer's last 20 ms are missing."""
    ours, theirs = (np.load(BUILD / f"{who}-{seconds}.npy").astype(np.float64) for who in ("ours", "peer"))
    difference = ours[: len(theirs)] - theirs
    return float(10 * np.log10(np.sum(theirs**2) / np.sum(difference**2)))


if __name__ == "__main__":
    sys.exit(main())
