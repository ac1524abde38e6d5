"""What one client of live streams can take of the server by breaking the rules: no more than its share."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from live_parts import HOP, LIVE, RATE, START, Client, Pipe, Stage, run, sung

from rocktop_ray.errors import BusyError
from rocktop_ray.live import messages
from rocktop_ray.live.messages import CloseCode
from serve_apps.config import LiveConfig
from serve_apps.live.desk import LocalDesk
from serve_apps.live.session.early import Early
from serve_apps.live.session.wire import GoneError, TooMuchError


def test_answers_that_nobody_gave_do_not_open_the_window() -> None:
    async def work(stage: Stage) -> None:
        client = await Client(stage, sung(60), [RATE], START).connect()
        await client.sing(2)
        while client.received < 1:
            assert await client.hear(60)
        client.pipe.vanish()
        await client.served
        real, client.outputs = client.outputs, {2**31: client.outputs[0]}
        await client.connect()
        client.outputs = real
        stage.engine.slow = 100.0
        while client.next < client.blocks:
            client.send()
        await asyncio.sleep(5)
        assert client.pipe.to_server.qsize() >= 60 - 12, "what is read waits here"
        client.pipe.vanish()
        await client.served

    run(work, beyond=5.0)


def test_resuming_again_and_again_is_no_way_to_run_ahead_of_time() -> None:
    async def work(stage: Stage) -> None:
        client = await Client(stage, sung(60), [HOP], LIVE).connect()
        for _ in range(15):
            while client.next < min(client.blocks, client.started.next + 50) and client.pipe.closed is None:
                client.send()
                while client.received < client.next - 5 and await client.hear(0.1):
                    pass
            if client.pipe.closed is not None:
                break
            client.pipe.vanish()
            await client.served
            await client.connect()
        assert client.pipe.closed is not None and client.pipe.closed[0] == CloseCode.TOO_MUCH
        assert len(client.outputs) * HOP / RATE < 8

    run(work)


@pytest.mark.parametrize("times", [1, 3])
def test_who_was_away_for_long_may_send_all_that_was_sung_meanwhile(times: int) -> None:
    async def work(stage: Stage) -> None:
        stage.desk = LocalDesk(LiveConfig(resume_seconds=60))
        client = await Client(stage, sung(60), [HOP], LIVE).connect()
        for _ in range(times):
            await client.sing(client.next + 50, real_time=True)
            client.pipe.vanish()
            await client.served
            await asyncio.sleep(10)
            await client.connect()
            await client.sing(client.next + 10 * RATE // HOP)
        await client.sing(client.next + 50, real_time=True)
        await client.end()
        assert client.pipe.closed is not None and client.pipe.closed[0] == CloseCode.ENDED

    run(work)


def test_blocks_are_as_many_as_the_usual_length_lets_expect() -> None:
    async def sent(stage: Stage, block: int) -> int | None:
        client = await Client(stage, sung(3), [RATE // 50], messages.Start("anna", RATE, "f32", block)).connect()
        while client.next < client.blocks and client.pipe.closed is None:
            await client.sing(client.next + 1, real_time=True)
        if client.pipe.closed is None:
            await client.end()
        assert client.pipe.closed is not None
        return client.pipe.closed[0]

    async def work(stage: Stage) -> None:
        assert await sent(stage, RATE) == CloseCode.TOO_MUCH, "said to send one a second, and sends 50"
        assert await sent(stage, RATE // 20) == CloseCode.ENDED, "20, and sends 50"

    run(work)


def test_another_voice_again_and_again_is_refused_and_the_stream_goes_on() -> None:
    async def work(stage: Stage) -> None:
        client = await Client(stage, sung(1), [HOP], START).connect()
        for number in range(20):
            client.say(messages.ChangeVoice("berta" if number % 2 else "anna"))
        await (await client.sing()).end()
        assert client.codes().count("refused") >= 14
        assert client.pipe.closed is not None and client.pipe.closed[0] == CloseCode.ENDED

    run(work)


def test_who_finds_no_place_opens_no_voice() -> None:
    async def work(stage: Stage) -> None:
        stage.desk = LocalDesk(LiveConfig(sessions=1))
        opened, really = [], stage.engine.open

        async def slowly(*arguments: Any) -> Any:
            opened.append(1)
            await asyncio.sleep(20)
            return await really(*arguments)

        stage.engine.open = slowly
        clients = [asyncio.create_task(Client(stage, sung(1), [HOP], START).connect()) for _ in range(5)]
        await asyncio.sleep(1)
        clients.append(asyncio.create_task(Client(stage, sung(1), [HOP], START).connect()))
        await asyncio.sleep(15)
        clients.append(asyncio.create_task(Client(stage, sung(1), [HOP], START).connect()))
        found = await asyncio.gather(*clients, return_exceptions=True)
        assert [type(client) for client in found] == [Client] + 6 * [BusyError] and len(opened) <= 3

    run(work)


def test_a_client_is_heard_while_its_voice_is_opened() -> None:
    async def work(_: Stage) -> None:
        pipe = Pipe()
        early = Early(pipe, 100)
        for message in ("one", "two"):
            pipe.to_server.put_nowait(message)
        assert await early.heed(asyncio.sleep(1, "open")) == "open"
        assert early.backlog() == 6 and [await early.receive() for _ in range(2)] == ["one", "two"]
        pipe.to_server.put_nowait("three")
        assert await early.receive() == "three" and early.backlog() == 0
        pipe.to_server.put_nowait(bytes(101))
        assert await early.heed(asyncio.sleep(1, "open")) == "open", "no more is taken in, and nobody is sent away"
        pipe.bytes = 101
        with pytest.raises(TooMuchError):
            await early.heed(asyncio.sleep(1000))
        gone = Pipe()
        gone.vanish()
        left = asyncio.Event()

        async def opening() -> None:
            try:
                await asyncio.sleep(1000)
            finally:
                left.set()

        with pytest.raises(GoneError):
            await Early(gone, 100).heed(opening())
        assert left.is_set()

    run(work)
