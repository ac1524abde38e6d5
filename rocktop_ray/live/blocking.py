"""The client of ``/v1/stream`` as a plain generator, for programs that are not asynchronous."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Iterator
from typing import Any

from rocktop_ray.live.client import LiveClient
from rocktop_ray.live.messages import Audio, Start
from rocktop_ray.protocols import Array


def stream(url: str, start: Start, blocks: Iterable[Array], **options: Any) -> Iterator[Audio]:
    """Send all blocks over one stream, and yield what comes back, where nothing else is asynchronous.

    Args:
        url, start, options: see ``LiveClient``.
        blocks: float32 ``[1 sample .. 1 s]`` each.

    Raises as ``LiveClient``.
    """
    with asyncio.Runner() as runner:
        client = runner.run(_opened(url, start, options))
        answers = client.convert(blocks)
        try:
            while (audio := runner.run(_next(answers))) is not None:
                yield audio
        finally:
            runner.run(client.close())


async def _opened(url: str, start: Start, options: dict[str, Any]) -> LiveClient:
    client = LiveClient(url, start, **options)
    await client.open()
    return client


async def _next(answers: AsyncIterator[Audio]) -> Audio | None:
    return await anext(answers, None)
