"""Hours of audio in minutes, with replicas killed and clients that misbehave: ``python -m benchmarks.live.soak``.

Undisturbed streams go as fast as leaves the machine a third of its time, and must be what a ``LiveStream`` gives;
beside them clients sing by clocks that drift, others send garbage, too fast, do not read, say nothing or vanish, and
every so often, when all has been in time for a while, a replica is killed. No new hostile clients come around a kill:
what their floods cost would be put down to it. What was promised is listed with what came.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import subprocess
import sys
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

from benchmarks.compare import BUILD, ROOT
from benchmarks.live.claims import AFTER_KILL, Claim, claims, markdown
from benchmarks.live.hostile import HOSTILE
from benchmarks.live.machine import described, processes, put
from benchmarks.live.room import capacity, loaded, seats
from benchmarks.live.service import Service, role, serving
from benchmarks.load import busy_seconds
from serve_apps.priority import come_forward, stand_back

FOLDER = BUILD / "live" / "soak"
_SAMPLE = 2.0
"""Seconds between two looks at memory."""
_ASK = 20.0
"""Between two questions whether the service is ready: each makes it ask its store and its stages."""
_RESUME = 10.0
_CROWDS = 2
"""Processes of the crowd; the undisturbed streams' come behind them."""
RATE, BLOCK = 44_100, 1764
"""Of those that sing in real time."""
SLOWEST, _FASTEST = 1.1, 20.0
"""Times real time of undisturbed streams."""
_LOAD, _FIT = 0.67, 0.9
"""Shares of the machine: above the first undisturbed streams slow down, above the second nobody is killed."""
_PAUSE = 8.0 / (os.cpu_count() or 1)
"""Seconds between two hostile clients of a kind: a flood costs the proxy seconds of computing."""
_CALM = 5.0
"""Seconds for which all must have been in time, and all replicas ready, before a kill."""
_LONGEST = 30.0
"""Seconds that a kill waits for that."""
_HUSH = _CALM + 3.0
"""Seconds before a kill from which no hostile clients come; those that are there may end."""


@dataclass
class Watched:
    """What was seen from outside."""

    memory: dict[str, dict[int, list[tuple[float, float]]]] = field(default_factory=dict)
    """MiB by role and process over seconds."""
    kills: list[float] = field(default_factory=list)
    """When all had been in time for a while."""
    restless: list[float] = field(default_factory=list)
    """Kills after waiting for that in vain."""
    unhealthy: int = 0
    looks: int = 0
    wall: float = 0.0
    foreign: float = 0.0
    """Cores that others used meanwhile."""
    stopped: str = ""
    """Why it ended before its time."""
    busy: list[float] = field(default_factory=list)
    """Share of the machine, look by look."""
    capacity: int = 0
    """Live streams that it would let in."""
    postponed: int = 0
    """Seconds that kills waited for all to be in time, and for the last one's successor to be ready."""


def main() -> int:
    """Run, print the claims, keep all figures in ``build/bench/live/soak``; 1 if a claim failed."""
    options = _options()
    FOLDER.mkdir(parents=True, exist_ok=True)
    live = {"replicas": options.replicas, "preload": [options.voice], "preload_seconds": 0, "resume_seconds": _RESUME}
    live |= {"free_sessions": options.streams + 8, "load": options.load, "pitch": options.pitch}
    with serving({"live": live}, proxy=options.proxy) as service:
        watched, reports, crowd = _soak(service, options)
        time.sleep(_RESUME + 8)  # leases and parked sessions of those that vanished run out
        sitting = asyncio.run(seats(service.socket_url, options.voice))
        alive = service.healthy()
    steady = _compared(reports)
    found = claims(
        steady, crowd, watched, seats=sitting, alive=alive, minutes=options.minutes, replicas=options.replicas
    )
    _keep(found, steady, crowd, watched, options)
    return 0 if all(claim.kept for claim in found) else 1


def _options() -> argparse.Namespace:
    cores = os.cpu_count() or 1
    parser = argparse.ArgumentParser(prog="python -m benchmarks.live.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=60.0, help="of audio in all streams together")
    parser.add_argument("--quick", action="store_true", help="three minutes of audio, a kill every 30 s")
    parser.add_argument("--streams", type=int, default=max(1, cores // 2), help="undisturbed; the last one is cut")
    parser.add_argument("--live", type=int, default=1 if cores < 4 else 2, help="streams in real time, with drift")
    parser.add_argument("--compare-minutes", type=float, default=10.0, help="of each undisturbed one, from its start")
    parser.add_argument("--kill-every", type=float, default=60.0, help="seconds; 0 never")
    parser.add_argument("--cut-every", type=float, default=20.0, help="seconds; 0 never")
    parser.add_argument("--drift", type=float, default=1e-3)
    parser.add_argument("--hostile", nargs="*", choices=HOSTILE, default=list(HOSTILE))
    parser.add_argument("--replicas", type=int, default=2)
    parser.add_argument("--load", type=float, default=0.7, help="live.load")
    parser.add_argument("--proxy", default="python")
    parser.add_argument("--voice", default="bundle")
    parser.add_argument("--pitch", help="live.pitch: extractor of a voice that is not exact")
    parser.add_argument("--most-wall", type=float, default=40.0, help="minutes after which it is ended")
    options = parser.parse_args()
    if options.quick:
        parser.set_defaults(minutes=3.0, kill_every=30.0, cut_every=11.0, most_wall=2.5)
    return parser.parse_args()


def _soak(service: Service, options: argparse.Namespace) -> tuple[Watched, list[Path], dict[str, Any]]:
    stop, pace, hush = FOLDER / "stop", FOLDER / "pace", FOLDER / "hush"
    for path in (stop, hush, *FOLDER.glob("*.report.json")):
        path.unlink(missing_ok=True)
    put(pace, SLOWEST)
    common = {"url": service.socket_url, "voice": options.voice, "pitch": options.pitch, "stop": str(stop)}
    drifts = [options.drift * (-1) ** number for number in range(options.live)]
    jobs, told, reports = [], [], []
    # Those that sing in real time are not in one process with those that make noise.
    for name, hostile, drifting in (("drifting", [], drifts), ("hostile", options.hostile, [])):
        told.append(FOLDER / f"{name}.report.json")
        job = {**common, "rate": RATE, "block": BLOCK, "drifts": drifting, "hostile": hostile, "pause": _PAUSE}
        job["hush"] = str(hush)
        jobs.append(("crowd", {**job, "report": str(told[-1])}))
    for number in range(options.streams):
        reports.append(FOLDER / f"steady-{number}.report.json")
        cut = options.cut_every if number == options.streams - 1 else 0.0
        rate, block = ((48_000, 1920), (44_100, 1764))[number % 2]
        job = {**common, "rate": rate, "block": block, "clip": number, "cut_every": cut, "pace": str(pace)}
        job |= {"compare_seconds": 60 * options.compare_minutes, "kept": str(FOLDER / f"steady-{number}.f32")}
        jobs.append(("steady", {**job, "report": str(reports[-1])}))
    watched = Watched(capacity=asyncio.run(capacity(service.socket_url, options.voice)))
    print(f"{watched.capacity} live streams would be let in", file=sys.stderr, flush=True)
    started = [_started(module, number, job) for number, (module, job) in enumerate(jobs)]
    stand_back(threading.get_native_id())  # to look at all processes takes long enough to be heard
    try:
        _watch(service, started, [*reports, told[0]], watched, options)
        come_forward(threading.get_native_id())
        stop.touch()
        for process in started:
            with suppress(subprocess.TimeoutExpired):
                process.wait(45)
    finally:
        _end(started)
    crowd: dict[str, Any] = {"endings": {}, "badly": [], "drifters": [], "period": BLOCK / RATE}
    for report in told:
        found = _read(report)
        crowd["endings"] |= {name: each for name, each in found.get("endings", {}).items() if each}
        crowd["badly"] += found.get("badly", [])
        crowd["drifters"] += found.get("drifters", [])
    return watched, reports, crowd


def _watch(
    service: Service, started: list[subprocess.Popen[bytes]], reports: list[Path], w: Watched, options: Any
) -> None:
    """Until there is audio enough. reports: of the undisturbed streams, then of those in real time."""
    began, random, speed = time.monotonic(), Random(0), SLOWEST
    names = {process.pid: "crowd" if n < _CROWDS else "undisturbed client" for n, process in enumerate(started)}
    next_kill = began + (options.kill_every or 1e12)
    said, asked, first, before, own = began, began, busy_seconds(), (began, busy_seconds()), 0.0
    used: dict[int, float] = {}
    ready: dict[int, float] = {}
    while all(process.poll() is None for process in started):
        time.sleep(_SAMPLE)
        now = time.monotonic()
        w.wall = now - began
        known = bool(used)
        there = processes()
        for process in [*service.processes(there), *(each for pid, each in there.items() if pid in names)]:
            own += process.cpu - used.get(process.pid, 0.0 if known else process.cpu)
            used[process.pid] = process.cpu
            name = names.get(process.pid) or role(process)
            w.memory.setdefault(name, {}).setdefault(process.pid, []).append((w.wall, process.resident))
        if now > asked + _ASK:
            asked, w.looks = now, w.looks + 1
            w.unhealthy += not service.healthy()
        w.foreign = max(0.0, busy_seconds() - first - own) / w.wall
        w.busy.append((busy_seconds() - before[1]) / (now - before[0]) / (os.cpu_count() or 1))
        before = now, busy_seconds()
        speed = next_speed(speed, w.busy[-1])
        put(FOLDER / "pace", speed)
        drifters = _read(reports[-1]).get("drifters", [])
        audio = sum(_read(report).get("seconds", 0.0) for report in reports[:-1])
        audio += sum(stream["blocks"] for stream in drifters) * BLOCK / RATE
        last_kill = max([*w.kills, *w.restless], default=0.0)
        if now >= next_kill - _HUSH or now < last_kill + AFTER_KILL:
            (FOLDER / "hush").touch()
        else:
            (FOLDER / "hush").unlink(missing_ok=True)
        replicas = service.replicas("Live", there)
        ready = {pid: ready.get(pid, now) for pid in loaded(w.memory.get("Live", {}), replicas)}
        if now >= next_kill:
            back = sum(since <= now - _CALM for since in ready.values()) >= options.replicas
            calm = w.busy[-1] < _FIT and all(_in_time(stream, now) for stream in drifters)
            if back and (calm or now >= next_kill + _LONGEST):
                next_kill = now + options.kill_every
                service.kill(random.choice(replicas))
                (w.kills if calm else w.restless).append(time.monotonic())
            else:
                w.postponed += round(_SAMPLE)
        if now > said + 30:
            said = now
            print(
                f"{w.wall:.0f} s, {audio / 60:.1f} of {options.minutes:g} min of audio, undisturbed {speed:.1f} times "
                f"real time, {w.busy[-1]:.0%} busy, {len(w.kills) + len(w.restless)} kills",
                file=sys.stderr,
                flush=True,
            )
        judged = bool(last_kill) or not options.kill_every
        if audio >= 60 * options.minutes and judged and now > next_kill - options.kill_every + AFTER_KILL:
            return
        if w.wall > 60 * options.most_wall:
            w.stopped = f"ended after {options.most_wall:g} minutes"
            return


def next_speed(speed: float, busy: float) -> float:
    """Times real time at which undisturbed streams go next, by the share of the machine that is busy now."""
    return max(SLOWEST, speed * 0.8) if busy > _LOAD else min(_FASTEST, speed * 1.1)


def _in_time(stream: dict[str, Any], now: float) -> bool:
    """Whether it has been for a while."""
    last = max((at for at, *_ in stream["flagged"]), default=0.0)
    return 0 < stream["began"] < now - _CALM > last and not stream["error"]


def _started(module: str, number: int, job: dict[str, Any], *more: str) -> subprocess.Popen[bytes]:
    file = FOLDER / f"{module}-{number}.json"
    file.write_text(json.dumps(job))
    command = [sys.executable, "-m", f"benchmarks.live.{module}", str(file), *more]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}  # as a replica has, for the same sums
    return subprocess.Popen(command, cwd=ROOT, stdin=subprocess.DEVNULL, env=environment)


def _end(started: list[subprocess.Popen[bytes]]) -> None:
    for process in started:
        if process.poll() is None:
            with suppress(ProcessLookupError):
                process.kill()
        process.wait()


def _compared(reports: list[Path]) -> list[dict[str, Any]]:
    """The undisturbed streams' accounts, after what came back was held against the same stream in process."""
    print("comparing what came back", file=sys.stderr, flush=True)
    for report in reports:
        number = int(report.name.split("-")[1].split(".")[0])
        job = next(FOLDER.glob(f"steady-{number + _CROWDS}.json"))
        if _read(report).get("started"):
            process = _started("steady", number + _CROWDS, json.loads(job.read_text()), "compare")
            try:
                process.wait(600)
            except subprocess.TimeoutExpired:
                _end([process])
    for kept in FOLDER.glob("steady-*.f32"):
        kept.unlink()
    return [_read(report) or {"error": "no report"} for report in reports]


def _read(report: Path) -> dict[str, Any]:
    return dict(json.loads(report.read_text())) if report.exists() else {}


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
