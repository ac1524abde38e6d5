"""Hours of audio in minutes, with replicas killed and clients that misbehave: ``python -m benchmarks.live.soak``.

Undisturbed streams go as fast as the service takes them and must be what a ``LiveStream`` in their own process gives;
beside them two clients sing by clocks that drift, others send garbage, too fast, do not read, say nothing or vanish,
and every so often a replica is killed. What was promised is listed with what came.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

from benchmarks.compare import BUILD, ROOT
from benchmarks.live.claims import Claim, claims, markdown
from benchmarks.live.hostile import HOSTILE
from benchmarks.live.machine import described, processes
from benchmarks.live.service import Service, role, serving
from benchmarks.load import busy_seconds

FOLDER = BUILD / "live" / "soak"
_SAMPLE = 2.0
"""Seconds between two looks at memory."""
_RESUME = 10.0
_CROWDS = 2
"""Processes that last until they are told to stop."""


@dataclass
class Watched:
    """What was seen from outside."""

    memory: dict[str, dict[int, list[tuple[float, float]]]] = field(default_factory=dict)
    """MiB by role and process over seconds."""
    kills: list[float] = field(default_factory=list)
    unhealthy: int = 0
    looks: int = 0
    wall: float = 0.0
    foreign: float = 0.0
    """Cores that others used meanwhile."""
    stopped: str = ""
    """Why it ended before its time."""


def main() -> int:
    """Run, print the claims, keep all figures in ``build/bench/live/soak``; 1 if a claim failed."""
    options = _options()
    FOLDER.mkdir(parents=True, exist_ok=True)
    live = {"replicas": options.replicas, "preload": [options.voice], "preload_seconds": 0, "resume_seconds": _RESUME}
    live |= {"free_sessions": options.streams + 8, "load": options.load, "pitch": options.pitch}
    with serving({"live": live}, proxy=options.proxy) as service:
        watched, reports, crowd = _soak(service, options)
        time.sleep(_RESUME + 8)  # leases and parked sessions of those that vanished run out
        seats = asyncio.run(_seats(service, options.voice))
        alive = service.healthy()
    steady = [json.loads(report.read_text()) if report.exists() else {"error": "no report"} for report in reports]
    found = claims(steady, crowd, watched, seats=seats, alive=alive, minutes=options.minutes, replicas=options.replicas)
    _keep(found, steady, crowd, watched, options)
    return 0 if all(claim.kept for claim in found) else 1


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.live.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=60.0, help="of audio in each undisturbed stream")
    parser.add_argument("--quick", action="store_true", help="half a minute of audio, a kill every 10 s")
    parser.add_argument("--streams", type=int, default=2, help="undisturbed; the last one's connection is cut at times")
    parser.add_argument("--verify-minutes", type=float, default=1e9, help="of each that are compared, from its start")
    parser.add_argument("--kill-every", type=float, default=60.0, help="seconds; 0 never")
    parser.add_argument("--cut-every", type=float, default=20.0, help="seconds; 0 never")
    parser.add_argument("--drift", type=float, default=1e-3)
    parser.add_argument("--hostile", nargs="*", choices=HOSTILE, default=list(HOSTILE))
    parser.add_argument("--replicas", type=int, default=2)
    parser.add_argument("--load", type=float, default=3.0, help="live.load: room for all, as this is not about it")
    parser.add_argument("--proxy", default="python")
    parser.add_argument("--voice", default="bundle")
    parser.add_argument("--pitch", help="live.pitch: extractor of a voice that is not exact")
    parser.add_argument("--most-wall", type=float, default=90.0, help="minutes after which it is stopped")
    options = parser.parse_args()
    if options.quick:
        parser.set_defaults(minutes=0.5, kill_every=10.0, cut_every=7.0, most_wall=2.0)
    return parser.parse_args()


def _soak(service: Service, options: argparse.Namespace) -> tuple[Watched, list[Path], dict[str, Any]]:
    stop = FOLDER / "stop"
    for path in (stop, *FOLDER.glob("*.report.json")):
        path.unlink(missing_ok=True)
    common = {"url": service.socket_url, "voice": options.voice, "pitch": options.pitch}
    jobs, told = [], []
    # Those that sing in real time are not in one process with those that make noise.
    for name, hostile, drifts in (
        ("drifting", [], [options.drift, -options.drift] if options.drift else []),
        ("hostile", options.hostile, []),
    ):
        told.append(FOLDER / f"{name}.report.json")
        job = {**common, "rate": 44_100, "block": 1764, "drifts": drifts, "hostile": hostile}
        jobs.append(("crowd", {**job, "stop": str(stop), "report": str(told[-1])}))
    reports = []
    for number in range(options.streams):
        report = FOLDER / f"steady-{number}.report.json"
        cut = options.cut_every if options.streams > 1 and number == options.streams - 1 else 0.0
        rate, block = ((48_000, 1920), (44_100, 1764))[number % 2]
        job = {**common, "rate": rate, "block": block, "clip": number, "cut_every": cut, "report": str(report)}
        job |= {"seconds": 60 * options.minutes, "verify_seconds": 60 * options.verify_minutes}
        jobs.append(("steady", job))
        reports.append(report)
    started: list[subprocess.Popen[bytes]] = []
    try:
        for number, (module, job) in enumerate(jobs):
            file = FOLDER / f"{module}-{number}.json"
            file.write_text(json.dumps(job))
            command = [sys.executable, "-m", f"benchmarks.live.{module}", str(file)]
            environment = {**os.environ, "OMP_NUM_THREADS": "1"}  # as a replica has, for the same sums
            started.append(subprocess.Popen(command, cwd=ROOT, stdin=subprocess.DEVNULL, env=environment))
        watched = _watch(service, started, options)
        stop.touch()
        for process in started[:_CROWDS]:
            with suppress(subprocess.TimeoutExpired):
                process.wait(45)
    finally:
        for process in started:
            if process.poll() is None:
                with suppress(ProcessLookupError):
                    process.kill()
            process.wait()
    crowd: dict[str, Any] = {"endings": {}, "badly": [], "drifters": []}
    for report in told:
        found = json.loads(report.read_text()) if report.exists() else {}
        crowd["endings"] |= {name: each for name, each in found.get("endings", {}).items() if each}
        crowd["badly"] += found.get("badly", [])
        crowd["drifters"] += found.get("drifters", [])
    return watched, reports, crowd


def _watch(service: Service, started: list[subprocess.Popen[bytes]], options: argparse.Namespace) -> Watched:
    """Until all undisturbed streams are through."""
    watched, began, random = Watched(), time.monotonic(), Random(0)
    names = {process.pid: "crowd" if n < _CROWDS else "undisturbed client" for n, process in enumerate(started)}
    next_kill = began + (options.kill_every or 1e12)
    said, busy, own = began, busy_seconds(), 0.0
    used: dict[int, float] = {}
    while any(process.poll() is None for process in started[_CROWDS:]):
        now = time.monotonic()
        watched.wall = now - began
        known = bool(used)
        for process in [*service.processes(), *(each for pid, each in processes().items() if pid in names)]:
            own += process.cpu - used.get(process.pid, 0.0 if known else process.cpu)
            used[process.pid] = process.cpu
            name = names.get(process.pid) or role(process)
            watched.memory.setdefault(name, {}).setdefault(process.pid, []).append((now - began, process.resident))
        watched.looks += 1
        watched.foreign = max(0.0, busy_seconds() - busy - own) / max(1.0, watched.wall)
        watched.unhealthy += not service.healthy()
        if now >= next_kill:
            next_kill = now + options.kill_every
            replicas = service.replicas("Live")
            if len(replicas) >= options.replicas:  # else the last one is not back yet
                service.kill(random.choice(replicas))
                watched.kills.append(now)
        if now > said + 30:
            said = now
            print(f"{watched.wall:.0f} s, {len(watched.kills)} kills", file=sys.stderr, flush=True)
        if watched.wall > 60 * options.most_wall:
            watched.stopped = f"not done after {options.most_wall:g} minutes"
            break
        time.sleep(_SAMPLE)
    return watched


async def _seats(service: Service, voice: str) -> int:
    """Sessions that sit when only one does, as the server's statistics have it; -1 if it does not answer."""
    import numpy as np

    from rocktop_ray.errors import RocktopError
    from rocktop_ray.live.client import LiveClient
    from rocktop_ray.live.events import Event
    from rocktop_ray.live.protocol import Start, Stats

    seen: list[int] = []

    def note(event: Event) -> None:
        if isinstance(event, Stats):
            seen.append(event.sessions)

    try:
        async with LiveClient(service.socket_url, Start(voice, 48_000), on_event=note) as client:
            for _ in range(100):
                await client.send(np.zeros(1920, np.float32))
                await asyncio.sleep(0.04)
    except RocktopError:
        return -1
    return seen[-1] if seen else -1


def _keep(
    found: list[Claim],
    steady: list[dict[str, Any]],
    crowd: dict[str, Any],
    watched: Watched,
    options: argparse.Namespace,
) -> None:
    text = markdown(found, steady, crowd, watched)
    (FOLDER / "soak.md").write_text(text)
    raw = {"machine": described(), "options": {key: str(value) for key, value in vars(options).items()}}
    raw |= {"claims": [vars(claim) for claim in found], "steady": steady, "crowd": crowd, "watched": vars(watched)}
    (FOLDER / "soak.json").write_text(json.dumps(raw, indent=1))
    print(text)


if __name__ == "__main__":
    sys.exit(main())
