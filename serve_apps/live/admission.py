"""Whether all deadlines can be kept with one session more, by what hops were measured to cost.

Streams of one voice are computed together: ``fixed + each * n`` seconds for a hop of ``n``. At worst
sessions are spread over the replicas, and the fixed part is paid by every replica that has one of them.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

from serve_apps.live.engine import HopCost


def promised(costs: Sequence[HopCost], replicas: int) -> float:
    """Share of the time of ``replicas`` processes that sessions of these costs need, one cost for each session."""
    return sum(
        (cost.fixed * min(count, replicas) + cost.each * count) / cost.hop for cost, count in _by_voice(costs)
    ) / max(1, replicas)


def longest_turn(costs: Sequence[HopCost], replicas: int) -> float:
    """Time of the longest turn in a replica, as a share of its hop: a block cannot be answered in less."""
    turns = [
        (cost.fixed + cost.each * math.ceil(count / max(1, replicas))) / cost.hop for cost, count in _by_voice(costs)
    ]
    return max(turns, default=0.0)


def fits(costs: Sequence[HopCost], replicas: int, load: float) -> bool:
    """Whether all of them can keep their deadlines with ``load`` of the time."""
    return promised(costs, replicas) <= load and longest_turn(costs, replicas) <= load


def _by_voice(costs: Sequence[HopCost]) -> list[tuple[HopCost, int]]:
    """Each voice with the dearest of its costs, and its sessions."""
    dearest: dict[str, HopCost] = {}
    for cost in costs:
        known = dearest.get(cost.voice)
        if known is None or cost.fixed + cost.each > known.fixed + known.each:
            dearest[cost.voice] = cost
    count = Counter(cost.voice for cost in costs)
    return [(cost, count[voice]) for voice, cost in dearest.items()]
