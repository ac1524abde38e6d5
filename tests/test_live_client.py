"""The client of live streams against a real small server: order, resume, changes, refusals, garbage."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from live_calls import FREE, RATE, cut, heard, joined, song, through
from live_echo import EchoServer, abort
from websockets.asyncio.server import ServerConnection

from rocktop_ray.errors import (
    BusyError,
    SessionGoneError,
    SettingsError,
    StreamLostError,
)
from rocktop_ray.live import connection
from rocktop_ray.live.blocking import stream
from rocktop_ray.live.client import LiveClient
from rocktop_ray.live.connection import stream_address
from rocktop_ray.live.events import Event, Lost, Resumed
from rocktop_ray.live.messages import Applied, Audio, Ended, Flags, Notice, Start, Stats
from rocktop_ray.live.protocol import pack


@pytest.mark.parametrize("format", ["f32", "s16"])
def test_blocks_come_back_in_order(format: Any) -> None:
    take = np.round(song() * 32768).astype(np.float32) / np.float32(32768)
    edges = np.cumsum([1, 7, 320, 8000, 2, 319, 5000, 640])
    blocks = [part for part in np.split(take, edges) if len(part)]
    answers, events = asyncio.run(through(EchoServer(), blocks, Start("bundle", RATE, format, 320, "free")))
    assert np.array_equal(joined(answers), take)
    assert [len(audio.samples) for audio in answers[: len(blocks)]] == [len(block) for block in blocks]
    assert all(audio.flags == (Flags.LAST if audio.position >= len(take) else 0) for audio in answers)
    assert events[-1] == Ended(len(take), 0, 0) and any(isinstance(event, Stats) for event in events)


def test_the_plain_generator_is_the_same() -> None:
    async def main() -> tuple[list[Audio], EchoServer]:
        server = EchoServer()
        async with server.running():
            blocks = cut(song())
            return await asyncio.to_thread(lambda: list(stream(server.url, FREE, iter(blocks), api_key="hush"))), server

    answers, server = asyncio.run(main())
    assert np.array_equal(joined(answers), song()) and server.headers == ["Bearer hush"]


@pytest.mark.parametrize("save_every", [1, 7, 1000])
def test_a_dropped_connection_is_not_heard(save_every: int) -> None:
    server = EchoServer(save_every=save_every)

    async def drop(socket: ServerConnection, count: int) -> None:
        if count in (10, 33, 60):
            abort(socket)

    server.do = drop
    answers, events = asyncio.run(through(server, cut(song())))
    assert np.array_equal(joined(answers), song())
    assert len([event for event in events if isinstance(event, Lost)]) == 3
    assert len([event for event in events if isinstance(event, Resumed)]) == 3 and len(server.first) == 4


def test_a_connection_that_drops_in_the_flush_is_not_heard() -> None:
    server = EchoServer(delay=7000)
    dropped = False
    answer = server._answer

    async def drop_in_flush(socket: ServerConnection, session: Any, samples: Any, received: int, flags: Flags) -> None:
        nonlocal dropped
        if flags and session.position > 23_000 and not dropped:
            dropped = True
            abort(socket)
        await answer(socket, session, samples, received, flags)

    server._answer = drop_in_flush  # type: ignore[method-assign]
    answers, _ = asyncio.run(through(server, cut(song())))
    assert dropped and np.array_equal(joined(answers, 7000), song())


def test_changes_hold_at_their_place_also_after_a_drop() -> None:
    server = EchoServer(save_every=6)

    async def drop(socket: ServerConnection, count: int) -> None:
        if count == 31:
            abort(socket)

    server.do = drop

    async def main() -> tuple[list[Audio], list[Event]]:
        events: list[Event] = []
        async with server.running(), LiveClient(server.url, FREE, on_event=events.append) as client:

            async def feed() -> None:
                for number, block in enumerate(cut(song())):
                    if number == 29:
                        await client.change({"key": 8})
                    if number == 40:
                        await client.bypass(True)
                    await client.send(block)
                await client.end()

            answers = await heard(client, feed())
            assert await client.receive() is None
            with pytest.raises(SettingsError, match="not open"):
                await client.send(song(10))
            return answers, events

    answers, events = asyncio.run(main())
    wanted = song()
    wanted[29 * 320 : 40 * 320] *= np.float32(1.5)
    assert np.array_equal(joined(answers), wanted)
    assert [event.seq for event in events if isinstance(event, Applied)][-2:] == [29, 40]


def test_a_slow_server_is_not_sent_more_than_it_takes() -> None:
    server = EchoServer(window=0.2)
    sent: list[int] = []

    async def slow(socket: ServerConnection, count: int) -> None:
        await asyncio.sleep(0.01)
        sent.append(count)

    server.do = slow
    pulled: list[int] = []

    def blocks() -> Iterator[np.ndarray]:
        for number, block in enumerate(cut(song(8000))):
            pulled.append(number - len(sent))
            yield block

    async def main() -> list[Audio]:
        async with server.running(), LiveClient(server.url, FREE) as client:
            return [audio async for audio in client.convert(blocks())]

    assert np.array_equal(joined(asyncio.run(main())), song(8000))
    assert max(pulled) <= 0.2 * RATE / 320 + 2  # the window, the block that waits, and the one that is being cut


def test_a_live_stream_never_waits_and_says_when_it_has_fallen_behind() -> None:
    server = EchoServer(window=0.1)

    async def main() -> None:
        go_on = asyncio.Event()

        async def stuck(socket: ServerConnection, count: int) -> None:
            await go_on.wait()

        server.do = stuck
        start = Start("bundle", RATE, block=320)
        async with server.running(), LiveClient(server.url, start, patience=0) as client:
            try:
                for _ in range(100):
                    async with asyncio.timeout(30):
                        await client.send(song(320))
            finally:
                go_on.set()

    with pytest.raises(StreamLostError, match=r"too slow: 2\.0 s"):
        asyncio.run(main())


def test_new_kinds_of_messages_are_passed_over() -> None:
    server = EchoServer()

    async def news(socket: ServerConnection, count: int) -> None:
        await socket.send('{"type":"weather"}')
        await socket.send(pack(Notice("overloaded", "much to do", 1.5)))

    server.do = news
    answers, events = asyncio.run(through(server, cut(song(3000))))
    assert np.array_equal(joined(answers), song(3000)) and Notice("overloaded", "much to do", 1.5) in events


def test_a_server_that_falls_silent_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "_SILENCE", 0.2)
    server = EchoServer()

    async def stuck(socket: ServerConnection, count: int) -> None:
        if count == 5:
            await asyncio.sleep(1)

    server.do = stuck
    answers, events = asyncio.run(through(server, cut(song())))
    assert np.array_equal(joined(answers), song())
    assert [event.why for event in events if isinstance(event, Lost)] and "silent" in str(events)


def test_a_voice_may_take_its_time_to_be_ready(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "_SILENCE", 0.2)
    server = EchoServer()

    async def loading(socket: ServerConnection, number: int) -> bool:
        await asyncio.sleep(0.6)
        return False

    server.welcome = loading
    answers, _ = asyncio.run(through(server, cut(song())))
    assert np.array_equal(joined(answers), song())


@pytest.mark.parametrize("resuming", [False, True])
def test_a_server_that_answers_too_late_keeps_no_connection(monkeypatch: pytest.MonkeyPatch, resuming: bool) -> None:
    """It would begin, or go on, for nobody."""
    monkeypatch.setattr(connection, "_OPENING", 0.2)
    server = EchoServer()
    ends: list[asyncio.Task[None]] = []

    async def late(socket: ServerConnection, number: int) -> bool:
        if number < resuming:
            return False
        ends.append(asyncio.create_task(socket.wait_closed()))
        await ends[-1]
        return True

    async def cable(socket: ServerConnection, count: int) -> None:
        abort(socket)

    server.welcome, server.do = late, cable

    async def main() -> None:
        async with server.running():
            client = LiveClient(server.url, FREE, patience=0.0 if resuming else 30.0)
            try:
                with pytest.raises(StreamLostError, match=r"silent for 0\.2 s"):
                    await client.open()
                    await client.send(song(320))
                    while await client.receive() is not None:
                        pass
                async with asyncio.timeout(30):
                    await asyncio.gather(*ends)
            finally:
                await client.close()

    asyncio.run(main())
    assert len(ends) == 1


def test_a_resume_may_take_its_time_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "_SILENCE", 0.2)
    server = EchoServer()

    async def loading(socket: ServerConnection, number: int) -> bool:
        await asyncio.sleep(0.6 * (number > 0))
        return False

    async def drop(socket: ServerConnection, count: int) -> None:
        if count == 10:
            abort(socket)

    server.welcome, server.do = loading, drop
    answers, events = asyncio.run(through(server, cut(song(6400))))
    assert np.array_equal(joined(answers), song(6400))
    assert len([event for event in events if isinstance(event, Lost)]) == 1 and len(server.first) == 2


@pytest.mark.parametrize("answered", [False, True])
def test_a_session_that_was_not_kept_is_begun_anew_where_nothing_is_missed(answered: bool) -> None:
    server = EchoServer()

    async def forgets(socket: ServerConnection, count: int) -> None:
        if count == 1 + answered:
            server.sessions.clear()
            abort(socket)

    server.do = forgets

    async def main() -> tuple[list[Audio], list[Event]]:
        events: list[Event] = []
        async with server.running(), LiveClient(server.url, FREE, on_event=events.append) as client:
            await client.change({"key": 8})
            return [audio async for audio in client.convert(iter(cut(song(3200))))], events

    if answered:
        with pytest.raises(SessionGoneError):
            asyncio.run(main())
        return
    answers, events = asyncio.run(main())
    assert np.array_equal(joined(answers), song(3200) * np.float32(1.5))
    assert [type(first).__name__ for first in server.first] == ["Start", "Resume", "Start"]
    assert len([event for event in events if isinstance(event, Resumed)]) == 1


def test_another_delay_holds_where_the_server_says() -> None:
    """Also where a change was told for blocks behind it meanwhile, and after a resume."""
    server = EchoServer()

    async def turns(socket: ServerConnection, count: int) -> None:
        if count == 6:
            await socket.send(pack(Applied({}, "alto", False, 9, 700)))
            await socket.send(pack(Applied({}, "alto", False, 5, 900)))
        if count == 8:
            abort(socket)

    server.do = turns

    async def main() -> None:
        async with server.running(), LiveClient(server.url, FREE) as client:
            async for audio in client.convert(iter(cut(song(4800)))):
                late = 900 if 5 <= audio.seq < 7 else 700
                assert client.delay_at(audio.seq) == late

    asyncio.run(main())


def test_what_is_not_there() -> None:
    async def main(url: str) -> None:
        await LiveClient(url, FREE).open()

    with pytest.raises(StreamLostError, match="cannot connect"):
        asyncio.run(main("ws://127.0.0.1:9"))
    server = EchoServer()

    async def fails(blocks: Iterator[np.ndarray]) -> None:
        async with server.running(), LiveClient(server.url, FREE) as client:
            _ = [audio async for audio in client.convert(blocks)]

    def broken() -> Iterator[np.ndarray]:
        yield song(320)
        raise BusyError("the source failed")

    with pytest.raises(BusyError, match="the source failed"):
        asyncio.run(fails(broken()))
    with pytest.raises(SettingsError, match="1 to 8000 samples"):
        asyncio.run(fails(iter([song(8001)])))


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("http://host:8000", "ws://host:8000/v1/stream"),
        ("https://host/", "wss://host/v1/stream"),
        ("wss://host/api/v1/stream", "wss://host/api/v1/stream"),
        ("127.0.0.1:8000", "ws://127.0.0.1:8000/v1/stream"),
        ("ws://[::1]:80", "ws://[::1]:80/v1/stream"),
    ],
)
def test_addresses(url: str, address: str) -> None:
    assert stream_address(url) == address


@pytest.mark.parametrize(
    "url", ["", "ftp://host", "ws://", "ws://host:99999", "ws://a:b@host", "ws://h?key=1", "ws://["]
)
def test_what_is_no_address(url: str) -> None:
    with pytest.raises(SettingsError, match="address"):
        stream_address(url)
