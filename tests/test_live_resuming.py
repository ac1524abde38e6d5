"""One live session that loses its replica, its gateway or its client, and goes on: to the bit, for its owner only."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import live_parts
import numpy as np
import pytest
from live_parts import HOP, LIVE, RATE, START, Client, Pipe, Stage, flagged, late_take, run, sung

from rocktop_ray.errors import RocktopError, SessionGoneError, StageLostError
from rocktop_ray.live import messages, protocol
from rocktop_ray.live.messages import CloseCode, Flags, Problem
from serve_apps.config import LiveConfig
from serve_apps.live.desk import LocalDesk

# loss


def test_lost_replicas_and_states_are_repaired_exactly() -> None:
    async def work(stage: Stage) -> None:
        client = await Client(stage, sung(3), [HOP, 100], START).connect()
        for at in range(10, client.blocks, 10):
            await client.sing(at)
            if at % 20:
                stage.engine.fails.extend([StageLostError("killed"), StageLostError("killed")])
                stage.engine.kept.clear()
            else:
                stage.engine.kept.clear()
        await (await client.sing()).end()
        assert np.array_equal(client.stream, late_take(client.take, client.started.delay))
        assert client.codes().count("replica-lost") == client.codes().count("recovered") >= 1
        assert not flagged(client, Flags.LOST)
        longest = max(sum(len(piece.samples) for piece in feed.pieces) for feed in stage.engine.feeds)
        assert longest <= 2.6 * RATE

    run(work)


def test_a_loss_that_lasts_is_heard_as_the_take_and_then_ends_the_session_which_can_be_resumed() -> None:
    async def work(stage: Stage) -> None:
        take = sung(4)
        client = await Client(stage, take, [HOP], LIVE).connect()
        await client.sing(12, real_time=True)
        stage.engine.fails.extend(StageLostError("killed") for _ in range(1000))
        await client.sing(60, real_time=True)
        await client.listen()
        assert client.pipe.closed[0] == CloseCode.UNAVAILABLE
        lost = flagged(client, Flags.LOST)
        assert lost and not set(lost) & set(range(8))
        for seq in lost[1:]:
            audio = client.outputs[seq]
            late = late_take(take, client.started.delay)[audio.position : audio.position + HOP]
            assert np.array_equal(audio.samples, late)
        stage.engine.fails.clear()
        await client.connect()
        await (await client.sing(70)).end()
        assert client.of(messages.Ended)

    run(work, recover=0.6)


# resuming


@pytest.mark.parametrize("lost_on_the_way", [0, 3])
def test_a_session_that_lost_its_client_goes_on_exactly(lost_on_the_way: int) -> None:
    async def work(stage: Stage) -> None:
        take = sung(3)
        client = await Client(stage, take, [HOP, 77, 500], replace(START, block=80)).connect()
        for until in (20, 21, 45):
            await client.sing(until)
            await asyncio.sleep(0.02)
            client.pipe.vanish()
            for seq in sorted(client.outputs)[len(client.outputs) - lost_on_the_way :]:
                del client.outputs[seq]
            await client.connect()
        await (await client.sing()).end()
        assert np.array_equal(client.stream, late_take(take, client.started.delay))
        assert stage.desk.sessions() == 0

    run(work)


def test_a_killed_gateway_costs_at_most_what_the_client_sends_again() -> None:
    async def work(stage: Stage) -> None:
        client = await Client(stage, sung(3), [HOP], START).connect()
        parked = stage.desk.park

        async def never(*_: Any, **__: Any) -> None:
            """A gateway that was killed parks nothing."""

        await client.sing(30)
        while not client.of(messages.Stats) or client.of(messages.Stats)[-1].kept < 20:
            assert await client.hear(60)
        kept = client.of(messages.Stats)[-1].kept
        await client.sing(40)
        stage.desk.park = never
        client.pipe.vanish()
        await client.served
        stage.desk.park = parked
        await client.connect()
        assert client.started.next <= 40 and client.started.next > kept
        await (await client.sing()).end()
        assert np.array_equal(client.stream, late_take(client.take, client.started.delay))

    run(work)


def test_a_second_connection_takes_the_session_over() -> None:
    async def work(stage: Stage) -> None:
        client = await Client(stage, sung(2), [HOP], START).connect()
        await client.sing(20)
        old = client.pipe
        while client.received < 19:
            await client.hear(60)
        await client.connect()
        await (await client.sing()).end()
        assert old.closed is not None and old.closed[0] == CloseCode.IN_USE
        assert np.array_equal(client.stream, late_take(client.take, client.started.delay))

    run(work)


def test_strangers_do_not_get_a_session() -> None:
    async def work(stage: Stage) -> None:
        client = await Client(stage, sung(1), [HOP], START).connect()
        await client.sing(10)
        while client.received < 9:
            assert await client.hear(60)
        client.pipe.vanish()
        await client.served
        strangers = (
            (messages.Resume(client.started.session, "wrong"), None),
            (messages.Resume("nobody", client.started.secret), None),
            (messages.Resume(client.started.session, client.started.secret), "somebody"),
        )
        for ended in (False, True):
            for resume, owner in strangers:
                pipe = Pipe()
                pipe.to_server.put_nowait(protocol.pack(resume))
                with pytest.raises(SessionGoneError):
                    await stage.serve(pipe, owner)
            if not ended:
                await client.connect()
                await (await client.sing()).end()

    run(work)


def test_who_missed_more_answers_than_are_kept_is_told_so_and_hears_no_gap() -> None:
    async def work(stage: Stage) -> None:
        client = await Client(stage, sung(4), [HOP], START).connect()
        await client.sing(80)
        while client.received < 79:
            assert await client.hear(60)
        client.pipe.vanish()
        await client.served
        kept = dict(client.outputs)
        for received in (-1, 20):
            client.outputs = {seq: audio for seq, audio in kept.items() if seq <= received}
            with pytest.raises(SessionGoneError, match=f"from {received + 1} on are missed.*start anew"):
                await client.connect()
        client.outputs = {seq: audio for seq, audio in kept.items() if seq <= 60}
        await client.connect()
        await (await client.sing()).end()
        assert np.array_equal(client.stream, late_take(client.take, client.started.delay))

    run(work, free_window=1.0)


def test_a_gateway_that_drains_parks_its_sessions() -> None:
    async def work(stage: Stage) -> None:
        client = await Client(stage, sung(2), [HOP], START).connect()
        await client.sing(20)
        stage.draining = True
        await client.listen()
        assert client.pipe.closed[0] == CloseCode.DRAINING and "draining" in client.codes()
        stage.draining = False
        await client.connect()
        await (await client.sing()).end()
        assert np.array_equal(client.stream, late_take(client.take, client.started.delay))

    run(work)


@pytest.mark.parametrize("draining", [False, True])
def test_a_session_that_has_no_block_yet_waits_for_a_moment(draining: bool) -> None:
    async def work(stage: Stage) -> None:
        stage.desk = LocalDesk(LiveConfig(), asyncio.get_running_loop().time)
        client = await Client(stage, sung(0.5), [HOP], LIVE).connect()
        for away in (10, 20):
            stage.draining = draining
            if not draining:
                client.pipe.vanish()
            await client.served
            stage.draining = False
            assert stage.desk.sessions() == 0
            await asyncio.sleep(away)
            if away == 10:
                await client.connect()
                assert client.started.next == 0
        with pytest.raises(SessionGoneError):
            await client.connect()

    run(work)


def test_the_reason_of_a_close_tells_no_more_than_the_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    explain = live_parts.explain

    def veiled(error: BaseException) -> Problem:
        return replace(explain(error), detail="cannot read voice.pth")

    monkeypatch.setattr(live_parts, "explain", veiled)

    async def work(stage: Stage) -> None:
        client = await Client(stage, sung(0.5), [HOP], START).connect()
        stage.engine.fails.append(RocktopError("cannot read /opt/secret/place/voice.pth"))
        client.send()
        await client.listen()
        assert client.pipe.closed == (CloseCode.FAULT, "cannot read voice.pth")

    run(work)
