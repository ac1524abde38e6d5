"""Timing of what takes blocks, in workers of both sides: numpy alone is imported, as the peer has its own packages."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from benchmarks.load import Watch

_WARM = 3
"""Blocks of a stream that do not count: the first meet empty caches."""


def blocks_of(take: Any, block: int) -> Iterator[Any]:
    """Blocks of the take, over and over."""
    at = 0
    while True:
        yield take[at : at + block]
        at = at + block if at + 2 * block <= len(take) else 0


def probe(
    feed: Callable[[Any], Any], take: Any, block: int, budget: float, least: int, *, paced: bool = False
) -> dict[str, Any]:
    """Feed blocks of ``block`` samples at 48 kHz for ``budget`` seconds, but ``least`` blocks and a second of the take.

    paced: one by one in real time, as a stream comes, for twice as long. Between blocks the processor then is idle, or
    somebody else's, and what a network needs is not close to it any more.

    Gives ``per_second`` (seconds per second of audio), percentiles of a block in ms, and the foreign load.
    """
    blocks = blocks_of(take, block)
    for _ in range(_WARM):
        feed(next(blocks))
    watch, taken = Watch(), []
    period = block / 48_000
    while (len(taken) * period < 2 * budget if paced else sum(taken) < budget) or len(taken) < least:
        fed = next(blocks)
        if paced:
            time.sleep(max(0.0, period - (taken[-1] if taken else 0.0)))
        began = time.perf_counter()
        feed(fed)
        taken.append(time.perf_counter() - began)
        if sum(taken) > 4 * budget and len(taken) >= 3:
            break
    p50, p95, most = (1e3 * float(value) for value in np.percentile(taken, (50, 95, 100)))
    return {
        "per_second": sum(taken) / (len(taken) * period),
        "p50_ms": p50,
        "p95_ms": p95,
        "max_ms": most,
        "blocks": len(taken),
        "foreign": watch.read()["foreign"],
    }


def whole(convert: Callable[[], Any], seconds: float) -> dict[str, Any]:
    """One offline conversion of a take of ``seconds``."""
    watch = Watch()
    convert()
    read = watch.read()
    return {"per_second": read["seconds"] / seconds, "foreign": read["foreign"]}
