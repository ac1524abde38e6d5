"""Replicas that say nothing more: stopped, on a lost machine, or killed a moment ago."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from live_parts import HOP, RATE, Client, GainEngine, Stage, flagged, late_take, sung

from rocktop_ray.errors import StageLostError
from rocktop_ray.live.messages import Flags, Start
from rocktop_ray.settings import ConvertSettings
from serve_apps.config import LiveConfig
from serve_apps.live.desk import LocalDesk
from serve_apps.live.engine import Fed, Feed, HopCost, Piece, StreamFacts
from serve_apps.live.transport import remote
from serve_apps.live.transport.door import Address, Door
from serve_apps.live.transport.hedge import hedged
from serve_apps.live.transport.path import Path
from serve_apps.live.transport.pulse import CALM, LEAST, MOST, Pulse
from serve_apps.live.transport.remote import ServeEngine
from serve_apps.orders import VoiceRef


class Replica:
    """A side door behind a wire that can be stopped: what goes there then is taken, and nothing comes back."""

    def __init__(self, name: str, answer: Callable[[Any], Awaitable[Any]]) -> None:
        self.door, self.calls, self._answer = Door(name, self._counted), 0, answer
        self.runs = asyncio.Event()
        self.runs.set()
        self._writers: list[asyncio.StreamWriter] = []

    async def __aenter__(self) -> Replica:
        inside = await self.door.open("127.0.0.1")

        async def copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            self._writers.append(writer)
            with suppress(OSError):
                while data := await reader.read(1 << 16):
                    await self.runs.wait()
                    writer.write(data)

        async def passed(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            far_reader, far_writer = await asyncio.open_connection(inside.host, inside.port)
            with suppress(asyncio.CancelledError):  # when the loop ends
                await asyncio.gather(copy(reader, far_writer), copy(far_reader, writer))

        self._server = await asyncio.start_server(passed, "127.0.0.1", 0)
        self.address: Address = replace(inside, port=self._server.sockets[0].getsockname()[1])
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for writer in self._writers:
            writer.close()
        await self.door.leave(0.0)

    async def _counted(self, call: Any) -> Any:
        self.calls += 1
        return await self._answer(call)


async def after(seconds: float, answer: Any) -> Any:
    await asyncio.sleep(seconds)
    return answer


async def pinged(path: Path, times: int = 20) -> None:
    """It is known how quick the other end is."""
    for _ in range(times):
        await path.ping()


Answer = Callable[[Any], Awaitable[Any]]


@asynccontextmanager
async def two_replicas(one: Answer, two: Answer) -> AsyncIterator[tuple[Replica, Replica, Path, Path]]:
    """Both, and the ways there."""
    async with Replica("one", one) as first, Replica("two", two) as second:
        yield first, second, await Path.open(first.address), await Path.open(second.address)


def test_a_silent_replica_is_not_waited_for() -> None:
    async def run() -> None:
        answers = (lambda call: after(0.02, "first")), (lambda call: after(0.02, call))
        async with two_replicas(*answers) as (one, _, first, second):
            await pinged(first)
            one.runs.clear()
            began = time.monotonic()
            assert await hedged(first, "call", "spare", lambda: second) == ("spare", second)
            assert time.monotonic() - began < 30  # the first one would never answer
            assert first.silent and first.alive and not second.silent
            one.runs.set()
            await first.ping()
            assert not first.silent
            assert (await hedged(first, "call", "spare", lambda: second))[1] is first

    asyncio.run(run())


def test_a_slow_replica_that_answers_pings_is_waited_for() -> None:
    async def run() -> None:
        answers = (lambda call: after(0.3, "first")), (lambda call: after(0.0, call))
        async with two_replicas(*answers) as (_, two, first, second):
            for _ in range(3):
                answer, whose = await hedged(first, "call", "spare", lambda: second)
                # A test machine may stand still for a moment; then one call is made twice, and no second one soon.
                assert (answer, whose) in [("first", first), ("spare", second)]
            assert two.calls <= 1

    asyncio.run(run())


def test_the_first_good_answer_counts() -> None:
    async def run() -> None:
        answers = (lambda call: after(0.0, "first")), (lambda call: after(60.0, call))
        async with two_replicas(*answers) as (one, _, first, second):
            await pinged(first)
            one.runs.clear()
            asyncio.get_running_loop().call_later(0.4, one.runs.set)
            assert await hedged(first, "call", "spare", lambda: second) == ("first", first)
            one.runs.clear()
            asyncio.get_running_loop().call_later(0.3, first.close)
            with pytest.raises(StageLostError):
                await hedged(first, "call", "spare", lambda: None)

    asyncio.run(run())


def test_another_one_computes_at_once_when_a_replica_is_lost() -> None:
    async def run() -> None:
        answers = (lambda call: after(60.0, "first")), (lambda call: after(0.0, call))
        async with two_replicas(*answers) as (_, __, first, second):
            asyncio.get_running_loop().call_later(0.05, first.close)
            assert await hedged(first, "call", "spare", lambda: second) == ("spare", second)
            assert not first.alive

    asyncio.run(run())


@settings(max_examples=30, deadline=None)
@given(st.lists(st.floats(1e-5, 2.0), min_size=1, max_size=60))
def test_patience_follows_what_pings_take(taken: list[float]) -> None:
    pulse, now = Pulse(), 0.0
    for each in taken:
        pulse.asked(now)
        now += each
        pulse.answered(now)
        assert LEAST <= pulse.patience <= MOST
    for _ in range(60):
        pulse.asked(now)
        pulse.answered(now + 0.001)
        now += 0.01
    assert pulse.patience == pytest.approx(LEAST)


def test_a_false_alarm_is_not_followed_by_another_one_soon() -> None:
    pulse = Pulse()
    pulse.asked(0.0)
    assert not pulse.alarm(0.01) and pulse.alarm(0.03) and pulse.alarmed
    pulse.answered(0.05)
    assert not pulse.alarmed
    pulse.asked(0.06)
    assert pulse.left(0.5) == 0 and not pulse.alarm(0.5) and not pulse.alarmed
    assert pulse.alarm(0.06 + CALM)


class Handle:
    """Of a deployment of these replicas."""

    def __init__(self, replicas: list[Replica]) -> None:
        self._replicas = replicas

    def options(self, **_: Any) -> Handle:
        return self

    def broadcast(self, _: str) -> Handle:
        return self

    async def results_async(self, **_: Any) -> list[Address]:
        return [replica.address for replica in self._replicas]


def test_the_state_of_a_session_that_moves_waits_for_some_seconds_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its client may be gone, and nobody says that the session has ended: it may come back elsewhere."""

    async def answer(call: Any) -> Any:
        cost = HopCost("anna", 0.001, 0.001, 0.04)
        return StreamFacts(0, HOP, True, ConvertSettings(), cost) if call[0] == "open" else await fed(*call[1])

    async def fed(feed: Feed) -> Fed:
        waves = tuple(piece.samples for piece in feed.pieces)
        return Fed(waves, (0,) * len(waves), b"state" if feed.want_state else None, 0.0, 0.0, "")

    async def run(seconds: float) -> list[bytes | None]:
        """The states that came along with a block before a replica leaves, with the next one, and the one after."""
        monkeypatch.setattr(remote, "_MOVE_SECONDS", seconds)
        sent: list[bytes | None] = []

        async def told(call: Any) -> Any:
            if call[0] == "feed":
                sent.append(call[1][0].state)
            return await answer(call)

        async with Replica("one", told) as one, Replica("two", told) as two:
            engine, voice = ServeEngine(Handle([one, two])), VoiceRef("anna", "anna")
            await engine.open(voice, RATE, HOP, ConvertSettings())
            await asyncio.gather(*engine._paths._tasks)
            first = Feed("s", voice, RATE, HOP, 0, (Piece(np.zeros(HOP, np.float32), ConvertSettings()),))
            await engine.feed(first)
            path = engine._paths.at("s")
            assert path is not None
            path.leaving = True
            await engine.feed(replace(first, seq=1))
            await asyncio.sleep(0.2)
            await engine.feed(replace(first, seq=2))
        return sent

    assert asyncio.run(run(60.0)) == [None, None, b"state"]
    assert asyncio.run(run(0.01)) == [None, None, None]


def test_a_session_goes_on_exactly_when_its_replica_stops() -> None:
    """The connection stays all the time, and both replicas come to stand still in turn."""

    async def work() -> None:
        engines = [GainEngine(), GainEngine()]

        def answering(engine: GainEngine) -> Callable[[Any], Awaitable[Any]]:
            return lambda call: getattr(engine, call[0])(*call[1])

        async with AsyncExitStack() as open_:
            replicas = [
                await open_.enter_async_context(Replica(f"r{n}", answering(each))) for n, each in enumerate(engines)
            ]
            stage = Stage(ServeEngine(Handle(replicas)), LocalDesk(LiveConfig(resume_seconds=5)), slack=5.0)
            take = sung(6.0)
            client = await Client(stage, take, [HOP], Start("anna", RATE, "f32", HOP, "live")).connect()
            for until in (20, 60, 100):
                await client.sing(until, real_time=True)
                counts = [replica.calls for replica in replicas]
                await client.sing(until + 10, real_time=True)
                busy = max((0, 1), key=lambda n: replicas[n].calls - counts[n])
                replicas[busy].runs.clear()
                await client.sing(until + 30, real_time=True)
                replicas[busy].runs.set()
            await (await client.sing(real_time=True)).end()
            assert np.array_equal(client.stream, late_take(take, client.started.delay))
            assert not flagged(client, Flags.LATE) and not flagged(client, Flags.LOST)
            assert not client.codes()
            assert min(replica.calls for replica in replicas) > 20

    asyncio.run(asyncio.wait_for(work(), 60))
