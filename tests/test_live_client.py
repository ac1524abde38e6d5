"""The client of live streams against a real small server: order, resume, changes, refusals, garbage."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from live_echo import EchoServer, abort, refuse
from websockets.asyncio.server import ServerConnection

from rocktop_ray.errors import (
    BusyError,
    ProtocolError,
    RocktopError,
    SessionGoneError,
    SettingsError,
    StageLostError,
    StreamLostError,
    StreamRefusedError,
    VoiceNotFoundError,
)
from rocktop_ray.live import connection
from rocktop_ray.live.blocking import stream
from rocktop_ray.live.client import LiveClient
from rocktop_ray.live.connection import stream_address
from rocktop_ray.live.events import Event, Lost, Resumed
from rocktop_ray.live.outbox import Outbox
from rocktop_ray.live.protocol import Applied, Audio, CloseCode, Ended, Flags, Notice, Problem, Start, Stats, pack

RATE = 8000
FREE = Start("bundle", RATE, block=320, pace="free")


def song(samples: int = 20_000) -> np.ndarray:
    return np.random.default_rng(1).uniform(-0.5, 0.5, samples).astype(np.float32)


def cut(audio: np.ndarray, length: int = 320) -> list[np.ndarray]:
    return [audio[start : start + length] for start in range(0, len(audio), length)]


def joined(answers: list[Audio], delay: int = 700) -> np.ndarray:
    """All output without its delay; checks numbers and places."""
    assert [audio.seq for audio in answers] == list(range(len(answers)))
    assert [audio.position for audio in answers] == [
        sum(len(a.samples) for a in answers[:i]) for i in range(len(answers))
    ]
    return np.concatenate([audio.samples for audio in answers])[delay:]


async def through(
    server: EchoServer, blocks: list[np.ndarray], start: Start = FREE, **options: Any
) -> tuple[list[Audio], list[Event]]:
    """All that comes back, and what happened meanwhile."""
    events: list[Event] = []
    async with server.running(), LiveClient(server.url, start, on_event=events.append, **options) as client:
        async with asyncio.timeout(20):
            return [audio async for audio in client.convert(blocks)], events


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

            feeding = asyncio.create_task(feed())
            answers = []
            while (audio := await client.receive()) is not None:
                answers.append(audio)
            await feeding
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

    async def stuck(socket: ServerConnection, count: int) -> None:
        await asyncio.sleep(5)

    server.do = stuck

    async def main() -> None:
        start = Start("bundle", RATE, block=320)
        async with server.running(), LiveClient(server.url, start, patience=0) as client:
            for _ in range(100):
                async with asyncio.timeout(0.1):
                    await client.send(song(320))

    with pytest.raises(StreamLostError, match=r"too slow: 2\.0 s"):
        asyncio.run(main())


def problem(code: str, status: int, **other: Any) -> Problem:
    return Problem(code, "Title", "because of the test", status, **other)


@pytest.mark.parametrize(
    ("code", "said", "kind", "exit_code"),
    [
        (CloseCode.BAD_MESSAGE, problem("bad_message", 400), ProtocolError, 76),
        (CloseCode.KEY, problem("unauthenticated", 401), StreamRefusedError, 77),
        (CloseCode.ORIGIN, problem("forbidden", 403), StreamRefusedError, 77),
        (CloseCode.VOICE, problem("voice_not_found", 404), VoiceNotFoundError, 66),
        (CloseCode.SILENT, problem("silent", 408), StreamLostError, 69),
        (CloseCode.TOO_MUCH, problem("too_much", 413), StreamRefusedError, 77),
        (CloseCode.SETTINGS, problem("invalid_settings", 422), SettingsError, 64),
        (CloseCode.NO_CAPACITY, problem("busy", 429, retry_after=7.0), BusyError, 75),
        (CloseCode.FAULT, problem("internal_error", 500), RocktopError, 70),
        (CloseCode.UNAVAILABLE, problem("stage_lost", 503), StageLostError, 75),
    ],
)
def test_refusals_are_the_errors_that_they_are(
    code: CloseCode, said: Problem, kind: type[RocktopError], exit_code: int
) -> None:
    server = EchoServer()

    async def no(socket: ServerConnection, number: int) -> bool:
        await socket.recv()
        await refuse(socket, code, said)
        return True

    server.welcome = no
    with pytest.raises(kind, match="because of the test") as refused:
        asyncio.run(through(server, cut(song())))
    error = refused.value
    assert type(error) is kind and (error.code, error.exit_code) == (said.code, exit_code)
    assert getattr(error, "retry_after", 7.0) == 7.0 and len(server.headers) == 1


@pytest.mark.parametrize(("code", "tries"), [(CloseCode.GONE, 2), (CloseCode.SETTINGS, 1), (CloseCode.TOO_MUCH, 1)])
def test_a_stream_that_is_refused_in_the_middle(code: CloseCode, tries: int) -> None:
    server = EchoServer()

    async def no(socket: ServerConnection, count: int) -> None:
        if count == 20:
            server.sessions.clear()
            if code is CloseCode.GONE:
                abort(socket)
            else:
                await refuse(socket, code, problem("late_refusal", 400))

    server.do = no
    with pytest.raises(RocktopError) as refused:
        asyncio.run(through(server, cut(song())))
    assert len(server.headers) == tries
    assert isinstance(refused.value, SessionGoneError) == (code is CloseCode.GONE)


def test_a_fault_that_comes_again_and_again_ends_the_stream() -> None:
    server = EchoServer()

    async def fault(socket: ServerConnection, count: int) -> None:
        if count >= 20:
            await refuse(socket, CloseCode.FAULT, problem("internal_error", 500))

    server.do = fault
    with pytest.raises(RocktopError, match="fault of its own: because"):
        asyncio.run(through(server, cut(song())))
    assert 2 <= len(server.headers) <= 3


def test_a_server_that_stays_away_is_waited_for_and_no_longer() -> None:
    server = EchoServer()

    async def away(socket: ServerConnection, number: int) -> bool:
        return abort(socket) if number else False

    async def drop(socket: ServerConnection, count: int) -> None:
        if count == 5:
            abort(socket)

    server.welcome, server.do = away, drop
    with pytest.raises(StreamLostError, match=r"within 0\.5 s"):
        asyncio.run(through(server, cut(song()), patience=0.5))
    assert 3 <= len(server.headers) <= 6  # 0, 0.1, 0.3 s... after the drop


@pytest.mark.parametrize(
    ("garbage", "says"),
    [
        ("hello", "not JSON"),
        ("[1]", "object"),
        (b"abc", "header"),
        (b"\1\0\0\0" + b"\xff" * 12 + bytes(4), "positions"),
        (pack(Notice("draining", "x")).replace("notice", "started"), "missing"),
        (b"\1\0\0\0" + b"\x63\0\0\0" + bytes(12), "comes next"),
        (b"\1\x08\0\0" + b"\4\0\0\0\0\5\0\0\0\0\0\0" + bytes(4), "flushed before"),
        (b"\1\0\0\0" + b"\4\0\0\0\0\5\0\0\0\0\0\0" + bytes(4), "another length"),
        ('{"type":"stats","kept":99,"seconds":1,"seq":1,"compute_ms":{"p50":1,"p95":1,"max":1},"queue_ms":0,'
         '"lateness_ms":0,"late":0,"lost":0,"bypassed":0,"load":0,"sessions":1}', "not sent"),
    ],
)  # fmt: skip
def test_garbage_from_the_server_is_one_clear_error(garbage: str | bytes, says: str) -> None:
    server = EchoServer()

    async def babble(socket: ServerConnection, count: int) -> None:
        if count == 5:
            await socket.send(garbage)

    server.do = babble
    with pytest.raises(ProtocolError, match=says):
        asyncio.run(through(server, cut(song())))
    assert len(server.headers) == 1


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


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_an_outbox_loses_and_doubles_nothing(data: st.DataObject) -> None:
    """A model of the whole: whatever is kept, dropped and asked for again, the server gets each block at its place."""
    outbox = Outbox("f32", 10**9)
    lengths: list[int] = []
    got = 0  # blocks that the server has
    kept = -1
    for _ in range(data.draw(st.integers(1, 40))):
        step = data.draw(st.sampled_from(["put", "take", "take", "answer", "keep", "drop"]))
        if step == "put":
            lengths.append(data.draw(st.integers(1, 50)))
            outbox.put(np.zeros(lengths[-1], np.float32))
        elif step == "take" and (entry := outbox.take(100)):
            assert (entry.seq, entry.position, entry.samples) == (got, sum(lengths[:got]), lengths[got])
            got += 1
            assert outbox.unanswered <= max(100, entry.samples)
        elif step == "answer" and outbox.received + 1 < got:
            seq = outbox.received + 1
            assert outbox.answer(Audio(seq, sum(lengths[:seq]), np.zeros(lengths[seq], np.float32)))
            assert not outbox.answer(Audio(seq, sum(lengths[:seq]), np.zeros(lengths[seq], np.float32)))
        elif step == "keep":
            kept = data.draw(st.integers(kept, max(kept, min(got - 1, outbox.received))))
            outbox.keep(kept)
        elif step == "drop":
            got = data.draw(st.integers(kept + 1, got))
            outbox.rewind(got)
        assert outbox.waiting == sum(lengths[got:])
    if kept >= 0:
        with pytest.raises(ProtocolError, match="can be sent"):
            outbox.rewind(kept)


def test_an_outbox_is_bounded() -> None:
    outbox = Outbox("s16", 1000)
    for _ in range(50):
        outbox.put(np.zeros(100, np.float32))
        while outbox.take(10**6):
            pass
    with pytest.raises(ProtocolError, match="40 to 50 can be sent"):
        outbox.rewind(39)
    outbox.rewind(40)
    assert outbox.waiting == 1000
