"""What the soak must show, held against what it saw."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite, log10
from typing import Any, Protocol

from benchmarks.live.figures import growth_per_second, rise, spread

MOST_GROWTH = 64.0
"""MiB that a process may grow once it has settled: over the whole soak by its slope, or over its life."""
_SETTLED, _LOADED = 60.0, 15.0
"""Seconds until a process has loaded what it needs; the second of a replica of ``Live``, which may not live long."""
_LIKENESS = 50.0
"""dB of undisturbed streams over their difference to the same ones in process."""
AFTER_KILL = 15.0
"""Seconds after a kill in which what went wrong is put down to it: until another replica has started."""
_MEMORY = ("Gateway", "LiveDesk", "proxy", "undisturbed client")


@dataclass(frozen=True)
class Claim:
    """What was promised, what was seen, and whether they go together."""

    what: str
    seen: str
    kept: bool


class Seen(Protocol):
    """What ``soak.Watched`` has."""

    memory: dict[str, dict[int, list[tuple[float, float]]]]
    kills: list[float]
    restless: list[float]
    unhealthy: int
    looks: int
    wall: float
    foreign: float
    stopped: str
    busy: list[float]
    capacity: int
    postponed: int


def claims(
    steady: Sequence[dict[str, Any]],
    crowd: dict[str, Any],
    watched: Seen,
    *,
    seats: int,
    alive: bool,
    minutes: float,
    replicas: int,
) -> list[Claim]:
    """All of them."""
    return [
        *_undisturbed(steady, crowd, watched, minutes),
        *_killed(crowd, watched, replicas),
        *_drifting(crowd),
        *_hostile(crowd),
        Claim("seats of clients that vanished are free in the end", f"{seats} of 1 expected", seats == 1),
        Claim(
            "the service stays ready",
            f"{watched.unhealthy} of {watched.looks} looks found it not ready; in the end: {alive}",
            alive and not watched.unhealthy,
        ),
        *_memory(watched),
    ]


def growth(watched: Seen, name: str) -> float:
    """MiB over the whole soak."""
    return growth_per_second(watched.memory.get(name, {}).values(), min(_SETTLED, watched.wall / 2)) * watched.wall


def growth_of_each(watched: Seen, name: str) -> list[tuple[float, float]]:
    """Of processes that come and go: MiB by which each grew once it had loaded, with the seconds that it was seen for
    since then. Those that died before anything can be said are left out.
    """
    lives = [samples for samples in watched.memory.get(name, {}).values() if samples]
    found = [(rise(samples, _LOADED), samples[-1][0] - samples[0][0] - _LOADED) for samples in lives]
    return [each for each in found if isfinite(each[0])]


def cost_of_kills(crowd: dict[str, Any], kills: Sequence[float]) -> list[int]:
    """Blocks that each drifting stream missed after each kill; others were not computed in time for other reasons."""
    return [
        missed([seq for at, _, seq in stream["flagged"] if 0 <= at - kill <= AFTER_KILL])
        for stream in crowd["drifters"]
        for kill in kills
    ]


def missed(flagged: Sequence[int]) -> int:
    """Blocks that were not heard converted, of numbers of blocks with a flag: of some in a row the last one only fades
    back to the converted.
    """
    runs: list[list[int]] = []
    for seq in sorted(flagged):
        if runs and seq == runs[-1][-1] + 1:
            runs[-1].append(seq)
        else:
            runs.append([seq])
    return sum(max(1, len(run) - 1) for run in runs)


def _undisturbed(steady: Sequence[dict[str, Any]], crowd: dict[str, Any], watched: Seen, minutes: float) -> list[Claim]:
    errors = [each["error"] for each in steady if each.get("error")]
    done = [each for each in steady if each.get("done")]
    slowest = min((each["seconds"] / each["wall"] for each in done), default=0.0)
    compared = sum(each.get("compared", 0.0) for each in steady)
    blocks = sum(each.get("blocks", 0) for each in steady)
    unlike, gaps = (sum(each.get(name, 0) for each in steady) for name in ("unlike", "gaps"))
    signal, noise = (sum(each.get(name, 0.0) for each in steady) for name in ("signal", "noise"))
    likeness = 10 * log10((signal + 1e-12) / (noise + 1e-12))
    apart = max((each.get("apart", 0.0) for each in steady), default=0.0)
    identical = sum(each.get("identical", 0) for each in steady)
    cuts, resumed = (sum(each.get(name, 0) for each in steady) for name in ("cuts", "resumed"))
    live = sum(stream["blocks"] for stream in crowd["drifters"]) * crowd.get("period", 0.0)
    audio = sum(each.get("seconds", 0.0) for each in steady) + live
    busy = sum(watched.busy) / max(1, len(watched.busy))
    return [
        Claim(
            f"{minutes:g} min of audio in all, undisturbed streams faster than real time",
            f"{audio / 60:.1f} min in {watched.wall / 60:.1f}; {len(done)} of {len(steady)} undisturbed done, "
            f"{slowest:.2f} times real time at least, beside {len(crowd['drifters'])} in real time; "
            + ("; ".join(errors) or watched.stopped or "no error"),
            audio >= 60 * minutes and len(done) == len(steady) and slowest > 1,
        ),
        Claim(
            "the crowd fits the machine",
            f"{watched.capacity} live streams would be let in; {busy:.0%} of the processors busy on average,"
            f" restarts after kills and others' {watched.foreign:.2f} cores included",
            watched.capacity >= len(crowd["drifters"]),
        ),
        Claim(
            "they are what a LiveStream in process gives, over kills and cuts",
            f"{compared:.0f} s compared; {unlike} of {blocks} blocks unlike, {identical} identical; {apart:.1e} apart, "
            f"{likeness:.0f} dB SNR",
            compared > 0 and not unlike and likeness >= _LIKENESS,
        ),
        Claim("no block missing, twice or out of order", f"{gaps} gaps in {blocks} blocks", blocks > 0 and not gaps),
        Claim("cut connections are resumed", f"{cuts} cuts, {resumed} resumed", resumed >= cuts - 1),
    ]


def _killed(crowd: dict[str, Any], watched: Seen, replicas: int) -> list[Claim]:
    if not watched.kills and not watched.postponed:
        return []
    costs, restless = cost_of_kills(crowd, watched.kills), cost_of_kills(crowd, watched.restless)
    others = sum(missed([seq for _, _, seq in stream["flagged"]]) for stream in crowd["drifters"])
    others -= sum(costs) + sum(restless)
    return [
        Claim(
            "a killed replica costs a live stream at most one block",
            f"{len(watched.kills)} kills of one of {replicas}, while all was ready and in time (waited"
            f" {watched.postponed} s for that); blocks missed within {AFTER_KILL:g} s by stream and kill: {costs};"
            f" {restless} after kills while it was not; {others} at other times",
            bool(watched.kills)
            and max(costs, default=0) <= 1
            and all(stream["answered"] for stream in crowd["drifters"]),
        )
    ]


def _drifting(crowd: dict[str, Any]) -> list[Claim]:
    found = []
    for stream in crowd["drifters"]:
        answers = stream["answers"]
        tenth = max(1, len(answers) // 10)
        first, last = spread(answers[:tenth]).p50 * 1e3, spread(answers[-tenth:]).p50 * 1e3
        found.append(
            Claim(
                f"a clock {stream['drift'] * 100:+.2f} % off is followed to the end",
                f"{stream['answered']} of {stream['blocks']} answered, {len(stream['flagged'])} late or lost; answers"
                f" took {first:.0f} ms first, {last:.0f} ms last; {stream['error'] or 'no error'}",
                stream["ended"]
                and not stream["gaps"]
                and stream["answered"] == stream["blocks"]
                and last < first + 100,
            )
        )
    return found


def _hostile(crowd: dict[str, Any]) -> list[Claim]:
    badly: dict[str, list[str]] = {}
    for each in crowd["badly"]:
        badly.setdefault(each.split(":")[0], []).append(each)
    words = {
        "garbage": "garbage is answered with a code of its own",
        "too fast": "who sends too fast is told and closed",
        "deaf": "who does not read is closed or held back",
        "silent": "who says nothing is closed",
        "vanishing": "who vanishes harms nobody",
    }
    return [
        Claim(
            words[name],
            f"{sum(endings.values())} connections, {len(badly.get(name, []))} ended otherwise "
            + ", ".join(badly.get(name, [])[:3]),
            not badly.get(name) and sum(endings.values()) > 0,
        )
        for name, endings in crowd["endings"].items()
        if endings
    ]


def _memory(watched: Seen) -> list[Claim]:
    found = []
    if lives := growth_of_each(watched, "Live"):
        more, seconds = max(lives)
        highest = max(mib for samples in watched.memory["Live"].values() for _, mib in samples)
        seen = (
            f"{len(lives)} replicas, each since it was loaded: {more:+.0f} MiB at most, in {seconds:.0f} s; the longest"
            f" was seen for {max(each[1] for each in lives):.0f} s; most {highest:.0f} MiB in a process"
        )
        found.append(Claim("memory of a replica of Live is bounded", seen, more <= MOST_GROWTH))
    for name in _MEMORY:
        samples = [mib for series in watched.memory.get(name, {}).values() for _, mib in series]
        if samples:
            more = growth(watched, name)
            seen = f"{more:+.0f} MiB over {watched.wall:.0f} s; most {max(samples):.0f} MiB in a process"
            found.append(Claim(f"memory of {name} is bounded", seen, more <= MOST_GROWTH))
    return found


def markdown(found: Sequence[Claim], steady: Sequence[dict[str, Any]], crowd: dict[str, Any], watched: Seen) -> str:
    """The claims, then how connections of hostile clients ended."""
    lines = ["| claim | seen | kept |", "|---|---|---|"]
    lines += [f"| {claim.what} | {claim.seen} | {'yes' if claim.kept else '**no**'} |" for claim in found]
    lines += ["", "| client | connections by how they ended |", "|---|---|"]
    for name, endings in crowd["endings"].items():
        codes: dict[str, int] = {}
        for ending, count in endings.items():
            code = ending.rsplit(": ", 1)[-1]
            codes[code] = codes.get(code, 0) + count
        lines.append(f"| {name} | {', '.join(f'{code}: {count}' for code, count in sorted(codes.items()))} |")
    flags = {key: sum(each.get("flags", {}).get(key, 0) for each in steady) for key in ("LATE", "LOST")}
    lines += [
        "",
        f"Undisturbed streams: {flags['LATE']} blocks late, {flags['LOST']} lost. {watched.wall:.0f} s in all;"
        f" others used {watched.foreign:.2f} cores meanwhile.",
    ]
    return "\n".join(lines) + "\n"
