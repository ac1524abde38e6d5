"""A call whose replica gives no sign of life is made at another one as well; the first answer counts.

The connection to a killed process breaks only when its memory was torn down, tens of milliseconds later; to a stopped
one, or to a lost machine, it stays. A replica that computes answers pings all the while. Called hedged requests since
Dean and Barroso, "The Tail at Scale" (2013).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any

from rocktop_ray.errors import StageLostError
from serve_apps.live.transport.path import Path

PING_SECONDS = 0.008
"""Between two signs of life, while an answer is waited for."""
_GRACE = 0.001
"""For a pong that lies here unread, as this process was late itself."""
_log = logging.getLogger(__name__)


async def hedged(path: Path, call: Any, spare: Any, other: Callable[[], Path | None]) -> tuple[Any, Path]:
    """The answer to ``call``, and whose it is.

    Args:
        path: where it is sent.
        spare: what another replica is sent, which knows nothing of the session.
        other: finds that one; None if there is none.

    Raises what ``Path.call`` does, once nobody is left to answer.
    """
    first = asyncio.create_task(path.call(call))
    asked = {first: path}
    try:
        while not await _silent(path, first):
            if first.done():
                break
        if not first.done() or isinstance(first.exception(), StageLostError):
            second = other()
            if second is not None:
                why = "silent" if path.alive else "lost"
                _log.warning("a live replica is %s: another one computes", why, extra={"replica": path.replica})
                asked[asyncio.create_task(second.call(spare))] = second
        while True:
            done, _ = await asyncio.wait(asked, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                found = asked.pop(task)
                if task.exception() is None or not asked:
                    return task.result(), found
    finally:
        for task in asked:
            task.cancel()


async def _silent(path: Path, answer: asyncio.Task[Any]) -> bool:
    """Wait for the answer, or for the next sign of life: whether neither came."""
    await asyncio.wait({answer}, timeout=PING_SECONDS)
    if answer.done():
        return False
    pong = path.ping()
    await asyncio.wait({answer, pong}, timeout=path.left(), return_when=asyncio.FIRST_COMPLETED)
    if not answer.done() and not pong.done():
        await asyncio.sleep(_GRACE)
    return not answer.done() and not pong.done() and path.alarm()
