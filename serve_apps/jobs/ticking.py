"""Streams that are silent for a while, without giving them up."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import suppress
from typing import TypeVar

from rocktop_ray.errors import RocktopError

_T = TypeVar("_T")


async def ticking(stream: AsyncGenerator[_T, None], seconds: float) -> AsyncGenerator[_T | None, None]:
    """The items of ``stream``, and None for every ``seconds`` without one. Closes ``stream`` however it ends."""
    coming: asyncio.Future[_T] | None = None
    try:
        while True:
            coming = coming or asyncio.ensure_future(anext(stream))
            await asyncio.wait([coming], timeout=seconds)
            if not coming.done():
                yield None
                continue
            done, coming = coming, None
            try:
                item = done.result()
            except StopAsyncIteration:
                return
            yield item
    finally:
        if coming is not None:
            coming.cancel()
            with suppress(asyncio.CancelledError, StopAsyncIteration, RocktopError):
                await coming
        await stream.aclose()
