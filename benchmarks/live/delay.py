"""Delay through the real service and its WebSocket, from outside: ``python -m benchmarks.live.delay``.

The service is started as ``make serve`` does; every client is a process of its own that sends in real time.
"""

from __future__ import annotations

import argparse
import itertools
import json
import random
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from benchmarks.compare import BUILD, ROOT
from benchmarks.live import delay_report
from benchmarks.live.machine import cpu_by_role, described, family, processes
from benchmarks.live.measured import read_call
from benchmarks.live.service import PROXIES, Service, role, serving
from benchmarks.load import busy_seconds

FOLDER = BUILD / "live"
_IMPORTS = 6.0
"""Seconds until all clients stand ready."""


def main() -> int:
    """Measure, print tables, keep them, the raw figures and a picture; 1 if a stream failed or was refused."""
    options = _options()
    FOLDER.mkdir(parents=True, exist_ok=True)
    found: list[delay_report.Case] = []
    for proxy, placement in itertools.product(options.proxy, options.placement):
        with serving(_config(options), proxy=proxy, placement=placement) as service:
            for streams in options.streams:
                name = f"{proxy} proxy, {placement}"
                print(f"{name}, {streams} streams ...", file=sys.stderr, flush=True)
                found.append(_measured(service, name, streams, options))
                _keep(found, options)
    text = delay_report.markdown(found, options.block_ms / 1e3)
    print(text)
    return 0 if all(not call.error for case in found for call in case.calls) else 1


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.live.delay", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="1 and 4 streams, 15 s of singing each")
    parser.add_argument("--minutes", type=float, default=1.0, help="of singing, for every number of streams")
    parser.add_argument("--clicks", type=float, default=10.0, help="seconds of clicks before it")
    parser.add_argument("--streams", nargs="+", type=int, default=[1, 4], help="at once")
    parser.add_argument("--block-ms", type=float, default=40.0)
    parser.add_argument("--rate", type=int, default=48_000)
    parser.add_argument("--voice", default="bundle")
    parser.add_argument("--pitch", help="live.pitch: extractor of a voice that is not exact")
    parser.add_argument("--proxy", nargs="+", choices=PROXIES, default=["python"])
    parser.add_argument("--placement", nargs="+", choices=("fused", "split"), default=["fused"])
    parser.add_argument("--replicas", type=int, default=1, help="of the deployment that computes")
    parser.add_argument("--threads", type=int, default=1, help="of each")
    parser.add_argument("--set", nargs="*", default=[], metavar="KEY=JSON", help="of the section live: load=0.9 ...")
    parser.add_argument("--picture", type=Path, default=FOLDER / "delay.png")
    options = parser.parse_args()
    if options.quick:
        parser.set_defaults(minutes=0.25, clicks=6.0)
    return parser.parse_args()


def _config(options: argparse.Namespace) -> dict[str, Any]:
    live: dict[str, Any] = {
        "replicas": options.replicas,
        "threads": options.threads,
        "preload": [options.voice],
        "preload_seconds": 0,
        "pitch": options.pitch,
    }
    for pair in options.set:
        key, _, value = pair.partition("=")
        live[key] = json.loads(value)
    return {"live": live}


def _measured(service: Service, name: str, streams: int, options: argparse.Namespace) -> delay_report.Case:
    block = round(options.block_ms * options.rate / 1e3)
    begin = time.monotonic() + _IMPORTS + streams
    sing = begin + options.clicks + 4
    stagger = random.Random(streams)
    job = {
        "url": service.socket_url,
        "voice": options.voice,
        "rate": options.rate,
        "block": block,
        "settings": {},
        "drift": 0.0,
        "click_seconds": options.clicks,
        "sung_seconds": 60 * options.minutes,
        "keep_seconds": 60.0,
    }
    callers: list[subprocess.Popen[bytes]] = []
    reports = []
    try:
        for number in range(streams):
            later = stagger.random() * options.block_ms / 1e3
            own = {"clip": number, "begin_at": begin + later, "sing_at": sing + later}
            reports.append(FOLDER / f"caller-{number}.npz")
            reports[-1].unlink(missing_ok=True)
            job_file = FOLDER / f"caller-{number}.json"
            job_file.write_text(json.dumps({**job, **own, "report": str(reports[-1])}))
            command = [sys.executable, "-m", "benchmarks.live.caller", str(job_file)]
            callers.append(subprocess.Popen(command, cwd=ROOT, stdin=subprocess.DEVNULL))
        usage = _usage(service, [caller.pid for caller in callers], sing, 60 * options.minutes)
        for caller in callers:
            with suppress(subprocess.TimeoutExpired):  # it is ended below, and leaves no report
                caller.wait(60 * options.minutes + options.clicks + 120)
    finally:
        for caller in callers:
            if caller.poll() is None:
                with suppress(ProcessLookupError):
                    caller.kill()
                caller.wait()
    calls = [read_call(report, options.rate, block, number, options.pitch) for number, report in enumerate(reports)]
    return delay_report.Case(name, streams, calls, usage, service.ready_seconds)


def _usage(service: Service, callers: list[int], begin: float, seconds: float) -> dict[str, float]:
    """Cores used by role while all sing; ``foreign`` is what nobody here used."""
    time.sleep(max(0.0, begin + 0.1 * seconds - time.monotonic()))
    before, busy, began = processes(), busy_seconds(), time.monotonic()
    time.sleep(max(1.0, begin + 0.95 * seconds - time.monotonic()))
    after, lasted = processes(), time.monotonic() - began
    ours = {process.pid for process in family(service.pid, after)}
    spent = cpu_by_role(before, after, lambda each: role(each) if each.pid in ours else None)
    spent["clients"] = sum(cpu_by_role(before, after, lambda each: "" if each.pid in callers else None).values())
    cores = {name: cpu / lasted for name, cpu in spent.items()}
    return {**cores, "foreign": max(0.0, (busy_seconds() - busy) / lasted - sum(cores.values()))}


def _keep(found: list[delay_report.Case], options: argparse.Namespace) -> None:
    """A long run that is cut short is not lost."""
    block = options.block_ms / 1e3
    chosen = {key: str(value) for key, value in vars(options).items()}
    cases = [case.figures(block) for case in found]
    (FOLDER / "delay.json").write_text(
        json.dumps({"machine": described(), "options": chosen, "cases": cases}, indent=1)
    )
    (FOLDER / "delay.md").write_text(delay_report.markdown(found, block))
    delay_report.picture(found, block, options.picture)


if __name__ == "__main__":
    sys.exit(main())
