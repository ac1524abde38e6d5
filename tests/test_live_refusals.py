"""What the client of live streams says when the server refuses, fails, stays away, or sends garbage."""

from __future__ import annotations

import asyncio
from typing import Any

import numpy as np
import pytest
from live_calls import cut, joined, song, through
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
from rocktop_ray.live.events import Resumed
from rocktop_ray.live.messages import CloseCode, Notice, Problem
from rocktop_ray.live.protocol import pack


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


def test_a_service_that_starts_again_is_waited_for() -> None:
    """What is before it answers handshakes by itself: with 500 and 503 while it stops, with 404 while it starts."""
    server = EchoServer()
    server.statuses = [500, 503, 404]

    async def drop(socket: ServerConnection, count: int) -> None:
        if count == 5:
            abort(socket)

    server.do = drop
    answers, events = asyncio.run(through(server, cut(song())))
    assert np.array_equal(joined(answers)[: len(song())], song())
    assert not server.statuses and [type(event) for event in events].count(Resumed) == 1


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
    assert 2 <= len(server.headers) <= 6  # 0, 0.1, 0.3 s... after the drop, fewer where the machine stands still


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
