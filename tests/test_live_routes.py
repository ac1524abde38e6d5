"""``/v1/stream`` over real WebSockets: exact, resumed, guarded, and unmoved by whatever is sent to it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from gateway_server import eventually
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from live_server import LiveServer, serving_live
from live_singer import RATE, START, Singer, run, whole
from live_voices import take, tiny_converter
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from rocktop_ray.live import messages, protocol
from rocktop_ray.live.messages import Audio, CloseCode, Flags, Problem, Start, Started
from rocktop_ray.live.stream import LiveStream
from serve_apps.gateway.key_ring import KeyFile
from serve_apps.live import routes


@pytest.fixture(name="server", scope="module")
def server_fixture(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    live = {"free_sessions": 32, "load": 100, "slack_ms": 1000}
    with serving_live(tmp_path_factory.mktemp("live"), live=live) as running:
        yield running


# sound


@pytest.mark.parametrize(("format", "sizes", "bound"), [("f32", [1764, 999, 44_100, 7], 0), ("s16", [1764], 2e-4)])
def test_the_stream_is_that_of_the_library(server: LiveServer, format: Any, sizes: list[int], bound: float) -> None:
    async def work() -> None:
        audio = take(2.0)
        singer = await Singer(server, Start("anna", RATE, format, 1764, "free")).connect()
        await singer.sing(audio, sizes)
        found = await singer.end()
        expected = whole(server, audio)
        assert singer.started.delay == LiveStream(tiny_converter("anna"), rate=RATE).delay
        assert found.shape == expected.shape and np.abs(found - expected).max() <= bound
        assert np.abs(expected).max() > 0.01
        assert {out.flags for out in singer.outputs.values()} <= {Flags.NONE, Flags.LAST}

    run(work)


def test_a_session_in_real_time_is_answered_in_time(server: LiveServer) -> None:
    async def work() -> None:
        audio = take(1.0)
        singer = await Singer(server, Start("anna", RATE, "f32", 1764, "live")).connect()
        enough, sent = asyncio.Event(), 0

        async def sing() -> None:
            nonlocal sent
            loop = asyncio.get_running_loop()
            began = loop.time()
            while sent < 50 or not enough.is_set():  # where others are busy, the first second may answer nothing
                await asyncio.sleep(max(0, began + (sent + 1) * 0.04 - loop.time()))
                block = audio[sent % 25 * 1764 :][:1764]
                await singer.socket.send(protocol.pack_audio(Audio(sent, sent * 1764, block)))
                sent += 1

        async with asyncio.TaskGroup() as group:
            group.create_task(sing())
            stats = await singer.until(messages.Stats, 1)
            enough.set()
        await singer.end()
        assert 0 <= stats.compute_ms.p50 <= stats.compute_ms.max > 0
        ended = singer.messages[-1]
        late = sum(bool(out.flags & Flags.LATE) for out in singer.outputs.values())
        assert (ended.samples, ended.late, ended.lost) == (sent * 1764, late, 0) and late < sent

    run(work)


def test_settings_change_while_it_runs(server: LiveServer) -> None:
    async def work() -> None:
        audio = take(1.2)
        singer = await Singer(server, START).connect()
        half = 1764 * 12
        await singer.sing(audio[:half], [1764])
        await singer.until(Audio, 11)
        await singer.say(messages.Change({"key": 5}))
        applied = await singer.until(messages.Applied)
        assert applied.seq == 12 and applied.settings["key"] == 5 and applied.voice == "anna"
        singer.started = Started(**{**vars(singer.started), "next": 12})
        await singer.sing(audio, [1764])
        assert np.array_equal(await singer.end(), whole(server, audio, (half, 5.0)))

    run(work)


def test_who_vanishes_and_comes_back_hears_what_would_have_been_heard(server: LiveServer) -> None:
    async def work() -> None:
        audio = take(2.5)
        singer = await Singer(server, START).connect()
        for part in (0.6, 1.4):
            await singer.sing(audio[: int(part * RATE) // 1764 * 1764], [1764])
            singer.socket.transport.abort()  # no closing frame, answers on their way are lost
            await singer.connect()
        await singer.sing(audio, [1764])
        assert np.array_equal(await singer.end(), whole(server, audio))

    run(work)


def test_who_lost_the_last_answers_can_still_hear_them(server: LiveServer) -> None:
    async def work() -> None:
        audio = take(1.5)
        singer = await Singer(server, START).connect()
        await singer.sing(audio, [1764])
        await singer.say(messages.End())
        await singer.until(Audio, 25)
        while server.desk.sessions():  # all is answered, the session over, and a part of it unread
            await asyncio.sleep(0.02)
        for _ in range(2):
            singer.socket.transport.abort()
            await singer.connect()
            assert max(singer.outputs) < 34
        await singer.sing(audio, [1764])
        assert np.array_equal(await singer.end(), whole(server, audio))
        assert singer.messages[-1].samples == len(audio)

    run(work)


def test_a_second_connection_takes_over_and_a_wrong_secret_does_not(server: LiveServer) -> None:
    async def work() -> None:
        audio = take(1.0)
        singer = await Singer(server, START).connect()
        await singer.sing(audio[: 1764 * 8], [1764])
        await singer.until(Audio, 7)
        thief = Singer(server, START)
        thief.started = Started(**{**vars(singer.started), "secret": "guessed"})
        assert await code_of(thief) == (CloseCode.GONE, "session_gone")
        old = singer.socket
        await singer.connect()
        await old.wait_closed()
        assert old.close_code == CloseCode.IN_USE
        await singer.sing(audio, [1764])
        assert np.array_equal(await singer.end(), whole(server, audio))

    run(work)


def test_a_gateway_that_is_about_to_stop_sends_its_sessions_elsewhere(
    server: LiveServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def work() -> None:
        audio = take(1.5)
        singer = await Singer(server, START).connect()
        await singer.sing(audio[: 1764 * 10], [1764])
        stops.append(True)
        await singer.until(type(None))
        assert singer.socket.close_code == CloseCode.DRAINING
        stops.clear()
        await singer.connect()
        await singer.sing(audio, [1764])
        assert np.array_equal(await singer.end(), whole(server, audio))

    stops: list[bool] = []
    monkeypatch.setattr(routes, "replica_draining", lambda: bool(stops))
    with serving_live(Path(server.config.cache_folder).parent) as server:
        run(work)


# refusals


async def code_of(singer: Singer) -> tuple[int, str]:
    """How a connection ends that is not let in: close code and code of the problem."""
    with contextlib.suppress(ConnectionClosed):
        await singer.connect()
        assert singer.started is None, "it was let in"
    await singer.until(type(None))
    await singer.socket.wait_closed()
    problem = next(message for message in singer.messages if isinstance(message, Problem))
    assert problem.request_id and problem.detail and singer.socket.close_reason
    return singer.socket.close_code, problem.code


def test_what_cannot_begin_is_told_why(server: LiveServer) -> None:
    async def work() -> None:
        for start, expected in (
            (Start("nobody", RATE), (CloseCode.VOICE, "voice_not_found")),
            (Start("anna", RATE, settings={"key": 99}), (CloseCode.SETTINGS, "invalid_settings")),
            (Start("anna", RATE, settings={"auto_key": True}), (CloseCode.SETTINGS, "invalid_settings")),
            (Start("anna", RATE, settings={"speaker": 50}), (CloseCode.SETTINGS, "invalid_settings")),
        ):
            assert await code_of(Singer(server, start)) == expected

    run(work)


def test_pages_of_elsewhere_and_foreign_names_are_refused(server: LiveServer) -> None:
    async def work() -> None:
        own = f"http://127.0.0.1:{server.port}"
        await (await Singer(server, START, origin=own).connect()).end()
        for origin in ("http://evil.example", "null", "http://127.0.0.1:1"):
            assert await code_of(Singer(server, START, origin=origin)) == (CloseCode.ORIGIN, "forbidden")
        socket = await connect(server.url, proxy=None, additional_headers={"X-Request-Id": "my-own"})
        assert socket.response.headers["X-Request-Id"] == "my-own"
        await socket.close()

    run(work)
    # what DNS rebinding looks like
    head = {"Host": "evil.example", "Upgrade": "websocket", "Connection": "Upgrade", "Sec-WebSocket-Version": "13"}
    head["Sec-WebSocket-Key"] = "x3JJHMbDL1EzLkh9GBhXDw=="
    with httpx.stream("GET", server.url.replace("ws:", "http:"), headers=head, trust_env=False) as answer:
        assert answer.status_code == 101
        stream, *_ = [b"".join(_frames(answer))]
    assert b"host_refused" in stream and (4403).to_bytes(2) in stream


def test_a_socket_at_a_path_where_nothing_is(server: LiveServer, caplog: pytest.LogCaptureFixture) -> None:
    async def work() -> None:
        for path in ("/v1/streams", "/", "/v1/convert"):
            with pytest.raises(InvalidStatus) as refused:
                await connect(server.url.replace("/v1/stream", path), proxy=None)
            answer = refused.value.response
            assert answer.status_code == 404 and answer.headers["content-type"] == "application/problem+json"
            problem = json.loads(answer.body)
            assert problem["code"] == "not_found" and path in problem["detail"] and problem["request_id"]

    def lines() -> list[Any]:
        return [record for record in caplog.records if record.getMessage() == "socket"]

    with caplog.at_level(logging.INFO):
        run(work)
        eventually(lambda: len(lines()) == 3)
    assert {(line.status, line.code) for line in lines()} == {(404, "not_found")}


def _frames(answer: httpx.Response) -> Iterator[bytes]:
    network = answer.extensions["network_stream"]
    while data := network.read(4096, timeout=60):
        yield data
        if b"host_refused" in data and (4403).to_bytes(2) in data:
            return


def test_keys(server: LiveServer, caplog: pytest.LogCaptureFixture) -> None:
    folder = Path(server.config.cache_folder).parent
    keys = KeyFile(folder / "keys.json")
    secret, other = keys.add("alice", at_once=1), keys.add("bob")
    audio = take(0.4)

    def lines() -> list[Any]:
        return [record for record in caplog.records if record.getMessage() == "socket"]

    async def work() -> None:
        header = {"Authorization": f"Bearer {secret}"}
        named = Start("anna", RATE, "f32", 1764, "free", key=secret)
        assert await code_of(Singer(server, START)) == (CloseCode.KEY, "unauthenticated")
        assert await code_of(Singer(server, Start("anna", RATE, key="rk_wrong"))) == (CloseCode.KEY, "unauthenticated")
        server.port, plain = f"{server.port}/v1/stream?key={secret}&", server.port
        assert await code_of(Singer(server, START)) == (CloseCode.KEY, "unauthenticated"), "never in the address"
        server.port = plain
        bad = Singer(server, START, additional_headers={"X-API-Key": "rk_wrong"})
        assert await code_of(bad) == (CloseCode.KEY, "unauthenticated")
        by_header = await Singer(server, START, additional_headers=header).connect()
        assert await code_of(Singer(server, named)) == (CloseCode.NO_CAPACITY, "rate_limited")
        await by_header.sing(audio, [1764])
        await by_header.until(Audio, 3)
        stolen = Singer(server, Start("anna", RATE, "f32", 1764, "free", key=other))
        by_header.socket.transport.abort()
        while len(lines()) < 6:  # until the server has noticed it
            await asyncio.sleep(0.02)
        stolen.started = by_header.started
        assert await code_of(stolen) == (CloseCode.GONE, "session_gone"), "the session is another key's"
        by_header.options = {}
        by_header.start = named
        await by_header.connect()
        await by_header.end()

    with serving_live(folder, security={"keys": str(keys.path)}) as server, caplog.at_level(logging.INFO):
        run(work)
        eventually(lambda: len(lines()) == 8)
    ours = [record for record in caplog.records if not record.name.startswith(("uvicorn", "websockets"))]
    text = "\n".join(str(vars(record)) for record in ours)
    assert secret not in text and other not in text
    assert len(lines()) == 8
    assert [line.owner for line in lines()].count("alice") == 2 and lines()[0].status == CloseCode.KEY


def test_one_who_sends_faster_than_time_passes_is_cut_off(server: LiveServer) -> None:
    async def work() -> None:
        singer = await Singer(server, Start("anna", RATE, "s16", 1764, "live")).connect()
        blocks = (protocol.pack_audio(Audio(n, n * 1764, np.zeros(1764, np.float32)), "s16") for n in range(400))
        with pytest.raises(ConnectionClosed):
            for block in blocks:
                await singer.socket.send(block)
                await asyncio.sleep(0)
            while await singer.until(object) is not None:
                pass
            await singer.socket.send("x")
        assert singer.socket.close_code == CloseCode.TOO_MUCH

    run(work)


# garbage

_VALUES = st.none() | st.booleans() | st.integers(-5, 2**40) | st.floats() | st.text(max_size=8)
_NAMES = ["type", "version", "voice", "rate", "format", "block", "pace", "settings", "bypass", "on", "key", "session"]
_TYPES = ["start", "resume", "settings", "voice", "bypass", "ping", "end", "started", "x"]
_OBJECTS = st.dictionaries(st.sampled_from(_NAMES) | st.text(max_size=4), _VALUES, max_size=5)
_GARBAGE = st.one_of(
    st.binary(max_size=80),
    st.binary(max_size=40).map(lambda rest: b"\x01\0\0\0" + rest),
    st.text(max_size=40),
    st.builds(lambda kind, rest: json.dumps({**rest, "type": kind}), st.sampled_from(_TYPES), _OBJECTS),
    st.builds(lambda rest: json.dumps({**vars(START), "key": None, "type": "start", "version": 1, **rest}), _OBJECTS),
    st.sampled_from(["[" * 5000, "{" * 20_000, '{"type":"start",' * 9, "1e999", '"\\ud800"', "\0", ""]),
)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(begun=st.booleans(), garbage=st.lists(_GARBAGE, min_size=1, max_size=4))
def test_garbage_ends_with_a_reason_and_harms_nobody(
    server: LiveServer, caplog: pytest.LogCaptureFixture, begun: bool, garbage: list[str | bytes]
) -> None:
    async def work() -> None:
        singer = Singer(server, START)
        singer.socket = await connect(server.url, proxy=None)
        if begun:
            await singer.say(START)
            assert await singer.until(Started)
        try:
            for message in garbage:
                await singer.socket.send(message)
            await singer.say(messages.End())
        except ConnectionClosed:
            pass
        closed = asyncio.create_task(_drained(singer.socket))
        code, texts = await closed
        assert code == 1000 or code in [int(known) for known in CloseCode if known not in (4500, 4503)]
        if code != 1000:
            assert json.loads(texts[-1])["type"] == "error" and singer.socket.close_reason

    caplog.clear()
    run(work)
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]


async def _drained(socket: ClientConnection) -> tuple[int, list[str]]:
    texts = []
    async with asyncio.timeout(60):
        try:
            while True:
                message = await socket.recv()
                if isinstance(message, str):
                    texts.append(message)
        except ConnectionClosed:
            return socket.close_code, texts


def test_metrics_and_the_list_of_sessions_are_clean_afterwards(server: LiveServer) -> None:
    async def work() -> None:
        singer = await Singer(server, START).connect()
        await singer.sing(take(0.4), [1764])
        await singer.end()

    run(work)
    eventually(lambda: server.desk.sessions() == 0)
    text = httpx.get(f"http://127.0.0.1:{server.port}/metrics", trust_env=False).text
    assert re.search(r'rocktop_live_blocks_total\{[^}]*answer="converted"[^}]*\} [1-9]', text)
    for name in ("connections_total", "compute_seconds_bucket", "queue_seconds_count", "delay_seconds_sum"):
        assert f"rocktop_live_{name}" in text
