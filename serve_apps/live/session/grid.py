"""The grid that a session's pieces lie on: as fine as it can be at the delay that the usual block asks for."""

from __future__ import annotations

import math
from typing import Any

from serve_apps.live.engine import LiveEngine
from serve_apps.live.session.changes import Chosen, choose
from serve_apps.orders import VoiceRef


async def grid_of(
    engine: LiveEngine, voice: VoiceRef, rate: int, block: int, asked: dict[str, Any]
) -> tuple[int, Chosen]:
    """The grid in samples, and the voice opened for it. Raises what ``choose`` raises.

    A hop is full when its last sample has come, so what counts of the block's length is what it has in common with the
    hop's. A finer grid lets other blocks be answered at once, too.
    """
    chosen = await choose(engine, voice, rate, block, asked)
    finer = math.gcd(block, chosen.facts.hop)
    if finer < block:
        other = await choose(engine, voice, rate, finer, asked)
        if other.facts.delay <= chosen.facts.delay:
            return finer, other
    return block, chosen
