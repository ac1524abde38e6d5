"""Bodies that are made while they are sent, and let go of what they hold however the sending ends."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Generator

import anyio
from starlette.concurrency import run_in_threadpool
from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send


class ClosingStream(StreamingResponse):
    """Closes its generator at once when the client goes away; a plain one leaves that to the garbage collector."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ASGI."""
        try:
            await super().__call__(scope, receive, send)
        finally:
            body = self.body_iterator
            if isinstance(body, AsyncGenerator):
                with anyio.CancelScope(shield=True):
                    await body.aclose()


async def in_threads(blocks: Generator[bytes, None, None]) -> AsyncGenerator[bytes, None]:
    """What a blocking generator gives, each step in a thread; it is closed in the end."""
    try:
        while (block := await run_in_threadpool(next, blocks, None)) is not None:
            yield block
    finally:
        with anyio.CancelScope(shield=True):
            await run_in_threadpool(blocks.close)
