"""Live sessions where replicas have no side doors: all goes over Serve, whose gRPC takes 4 MiB."""

from __future__ import annotations

import asyncio
import pickle
from dataclasses import replace
from typing import Any

import grpc
import numpy as np
from live_parts import HOP, RATE, Client, GainEngine, Stage, late_take, sung

from rocktop_ray.live.messages import Applied, ChangeVoice, Start
from serve_apps.config import LiveConfig
from serve_apps.live.desk import LocalDesk
from serve_apps.live.engine import Fed, Feed
from serve_apps.live.transport.remote import ServeEngine

MOST = 4 << 20


class LargeStates(GainEngine):
    """Those of voice ``berta`` have 5 MiB."""

    async def feed(self, feed: Feed, spare: Feed | None = None) -> Fed:
        if feed.state is not None:
            feed = replace(feed, state=feed.state[: len(feed.state) % MOST])
        fed = await super().feed(feed, spare)
        if fed.state is None or feed.voice.name == "anna":
            return fed
        return replace(fed, state=fed.state + bytes(MOST))


class Handle:
    """Of a deployment without side doors. ``ways``: how each feed went, with whether a large one may go that way."""

    def __init__(self, engine: GainEngine, by_reference: bool = True, ways: list[bool] | None = None) -> None:
        self.engine, self.by_reference, self.ways = engine, by_reference, [] if ways is None else ways

    def options(self, *, method_name: str, _by_reference: bool = True) -> Handle:
        assert method_name == "call"
        return Handle(self.engine, _by_reference, self.ways)

    def broadcast(self, _: str) -> Handle:
        return self

    async def results_async(self, **_: Any) -> list[None]:
        return [None]

    async def remote(self, method: str, args: tuple[Any, ...]) -> Any:
        if method == "feed":
            self.ways.append(self.by_reference)
        answer = await getattr(self.engine, method)(*args)
        if not self.by_reference and max(len(pickle.dumps(each)) for each in (args, answer)) > MOST:
            none = grpc.aio.Metadata()
            raise grpc.aio.AioRpcError(grpc.StatusCode.RESOURCE_EXHAUSTED, none, none)
        return answer


def test_a_voice_with_large_states_goes_on_and_small_ones_stay_fast() -> None:
    async def work() -> None:
        handle = Handle(LargeStates())
        stage = Stage(ServeEngine(handle), LocalDesk(LiveConfig(resume_seconds=5)))
        take = sung(3)
        client = await Client(stage, take, [HOP], Start("anna", RATE, "f32", HOP, "free")).connect()
        await client.sing(25)
        while client.received < 24:
            assert await client.hear(60)
        assert handle.ways.count(True) == 1, "only the first state is not known to be small"
        client.say(ChangeVoice("berta"))
        while not client.of(Applied):
            assert await client.hear(60)
        await client.sing(50)
        while client.received < 49:
            assert await client.hear(60)
        client.pipe.vanish()
        await client.served
        await client.connect()
        await (await client.sing()).end()
        late = late_take(take, client.started.delay)
        at = client.of(Applied)[0].seq * HOP
        assert np.array_equal(client.stream[:at], late[:at]) and np.array_equal(client.stream[at:], -late[at:])
        assert handle.ways.count(True) > 2

    asyncio.run(asyncio.wait_for(work(), 200))


def test_what_is_too_large_is_one_clear_error() -> None:
    class Blind(ServeEngine):
        def _carries_much(self, feed: Feed) -> bool:
            return False

    async def work() -> None:
        stage = Stage(Blind(Handle(LargeStates())), LocalDesk(LiveConfig(resume_seconds=5)))
        client = await Client(stage, sung(1), [HOP], Start("berta", RATE, "f32", HOP, "free")).connect()
        await client.sing()
        ending = await asyncio.wait_for(client.served, 60)
        assert ending.outcome == "parked" and ending.code == 4500

    asyncio.run(asyncio.wait_for(work(), 200))
