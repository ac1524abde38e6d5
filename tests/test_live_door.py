"""The side door of a live replica: calls side by side, for those who know its token, and quick to tell of a loss."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from rocktop_ray.errors import BusyError, StageLostError
from serve_apps.live.transport import path as path_module
from serve_apps.live.transport.door import Address, Door
from serve_apps.live.transport.path import Path


def test_calls_go_side_by_side_and_errors_come_through() -> None:
    async def run() -> None:
        gate = asyncio.Event()

        async def answer(value: Any) -> Any:
            if value == "wait":
                await gate.wait()
            if value == "full":
                raise BusyError("full", retry_after=3.0)
            return value

        door = Door("one", answer)
        address = await door.open("127.0.0.1")
        assert str(address.token) not in repr(address)
        path = await Path.open(address)
        waiting = asyncio.create_task(path.call("wait"))
        assert await path.call(b"x" * 300_000) == b"x" * 300_000
        with pytest.raises(BusyError) as error:
            await path.call("full")
        assert error.value.retry_after == 3.0 and not waiting.done()
        gate.set()
        assert await waiting == "wait"
        leaving = asyncio.create_task(door.leave(60.0))
        while not path.leaving:
            await asyncio.sleep(0.01)
        assert await path.call("still") == "still"
        path.close()
        await leaving

    asyncio.run(run())


def test_strangers_are_not_listened_to() -> None:
    async def run() -> None:
        calls: list[Any] = []

        async def answer(value: Any) -> None:
            calls.append(value)

        door = Door("one", answer)
        address = await door.open("127.0.0.1")
        with pytest.raises(ConnectionRefusedError):
            await Path.open(replace(address, token=bytes(32)))
        reader, writer = await asyncio.open_connection(address.host, address.port)
        writer.write(b"GET / HTTP/1.1\r\nHost: somewhere.example\r\n\r\n")
        assert await reader.read() == b"" and not calls
        writer.close()
        await door.leave(0.0)

    asyncio.run(run())


def test_one_that_does_not_greet_is_hung_up_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(path_module, "_OPEN_SECONDS", 0.1)

    async def run() -> None:
        hung_up = asyncio.Event()

        async def mute(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.read()
            hung_up.set()
            writer.close()

        server = await asyncio.start_server(mute, "127.0.0.1", 0)
        with pytest.raises(TimeoutError) as error:  # kept, and with it all that it was raised among
            await Path.open(Address("one", "127.0.0.1", server.sockets[0].getsockname()[1], bytes(32)))
        await asyncio.wait_for(hung_up.wait(), 30)
        assert error.value
        server.close()

    asyncio.run(run())


def test_a_loss_is_told_at_once_to_all_who_wait() -> None:
    async def run() -> None:
        door = Door("one", lambda value: asyncio.sleep(600))
        path = await Path.open(await door.open("127.0.0.1"))
        waiting = [asyncio.create_task(path.call(n)) for n in range(3)]
        await asyncio.sleep(0.05)
        await door.leave(0.0)
        for result in await asyncio.wait_for(asyncio.gather(*waiting, return_exceptions=True), 60):
            assert isinstance(result, StageLostError) and result.retryable
        assert not path.alive
        with pytest.raises(StageLostError):
            await path.call(4)

    asyncio.run(run())
