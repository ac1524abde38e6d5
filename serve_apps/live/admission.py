"""Whether all deadlines can be kept with one session more, by what hops were measured to cost.

Streams of one voice are computed together: ``fixed + each * n`` seconds for a hop of ``n``. At worst
sessions are spread over the replicas, and the fixed part is paid by every replica that has one of them. Formants are
moved stream by stream; at worst those that want it meet in one replica.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from serve_apps.live.engine import HopCost


def promised(costs: Sequence[HopCost], replicas: int) -> float:
    """Share of the time of ``replicas`` processes that sessions of these costs need, one cost for each session."""
    return sum(
        (cost.fixed * min(len(formants), replicas) + cost.each * len(formants) + sum(formants)) / cost.hop
        for cost, formants in _by_voice(costs)
    ) / max(1, replicas)


def longest_turn(costs: Sequence[HopCost], replicas: int) -> float:
    """Time of the longest turn in a replica, as a share of its hop: a block cannot be answered in less."""
    turns = []
    for cost, formants in _by_voice(costs):
        together = math.ceil(len(formants) / max(1, replicas))
        turns.append((cost.fixed + cost.each * together + sum(formants[:together])) / cost.hop)
    return max(turns, default=0.0)


@dataclass(frozen=True)
class Machine:
    """What there is to be shared."""

    replicas: int
    """Processes that compute and have cores of their own."""
    threads: int = 1
    """Of each."""
    cores: float = math.inf
    """Of all nodes."""
    way: float = 0.0
    """Seconds of a core that a block takes on its way through proxy and gateway; feeding a hop takes twice as much."""


def busy(costs: Sequence[HopCost], machine: Machine) -> float:
    """Share that is promised: of the replicas' time, or of all cores' with a block's way, whichever is more."""
    computing = promised(costs, machine.replicas)
    way = machine.way * sum(cost.blocks + 2 / cost.hop for cost in costs)
    return max(computing, (computing * machine.replicas * machine.threads + way) / machine.cores)


def fits(costs: Sequence[HopCost], machine: Machine, load: float) -> bool:
    """Whether all of them can keep their deadlines with ``load`` of the time."""
    return busy(costs, machine) <= load and longest_turn(costs, machine.replicas) <= load


def _by_voice(costs: Sequence[HopCost]) -> list[tuple[HopCost, list[float]]]:
    """Each voice with the dearest of its costs, and what each session of it needs to move formants, the most first."""
    dearest: dict[str, HopCost] = {}
    for cost in costs:
        known = dearest.get(cost.voice)
        if known is None or cost.fixed + cost.each > known.fixed + known.each:
            dearest[cost.voice] = cost
    formants: defaultdict[str, list[float]] = defaultdict(list)
    for cost in sorted(costs, key=lambda cost: -cost.formant):
        formants[cost.voice].append(cost.formant)
    return [(cost, formants[voice]) for voice, cost in dearest.items()]
