"""What a live session held is free as soon as it is over: a collector comes late where much is loaded."""

from __future__ import annotations

import asyncio
import gc
import weakref
from collections.abc import Iterator
from typing import Any

import pytest
from live_voices import TinyVoices, cut, feeds, take

from serve_apps.config import LiveConfig
from serve_apps.live.compute.local import LocalEngine


@pytest.fixture
def no_collector() -> Iterator[None]:
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@pytest.mark.usefixtures("no_collector")
def test_a_session_that_is_over_leaves_nothing_to_be_collected() -> None:
    held: list[weakref.ref[Any]] = []

    async def sung() -> None:
        engine = LocalEngine(TinyVoices(), LiveConfig(kept=2))
        try:
            for session in ("a", "b", "c"):
                for feed in feeds(session, "anna", cut(take(0.3), 1764)):
                    await engine.feed(feed)
                    run = engine._kept._streams[session].run
                    held.append(weakref.ref(run))
                    del run
            stream = weakref.ref(engine._kept._streams["c"].run.stream)
            assert sum(ref() is not None for ref in held) <= 3, "two that are kept, one that is ending"
            for session in ("b", "c"):
                await engine.forget(session)
            async with asyncio.timeout(60):  # the computing thread comes to the end of its turn
                while stream() is not None or any(ref() for ref in held):
                    await asyncio.sleep(0.01)
        finally:
            engine.close()

    asyncio.run(sung())
