"""One live session, from its first block to its end: exact, in time, repaired, resumed, bounded."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from live_parts import HOP, LATE, RATE, Client, GainEngine, Pipe, Stage, flagged, late_take, sung

from rocktop_ray.errors import (
    BusyError,
    SessionGoneError,
    SettingsError,
    StageLostError,
)
from rocktop_ray.live import messages, protocol
from rocktop_ray.live.messages import Audio, CloseCode, Flags, Start
from serve_apps.config import LiveConfig
from serve_apps.live.desk import LocalDesk
from serve_apps.live.endings import close_code

START = Start("anna", RATE, "f32", HOP, "free")
LIVE = replace(START, pace="live")


def run(work: Callable[..., Awaitable[Any]], **limits: Any) -> Any:
    """``work`` with a stage of its own. The machine may be busy: sessions without deadlines are preferred."""

    async def all_of_it() -> Any:
        return await work(Stage(GainEngine(), LocalDesk(LiveConfig(resume_seconds=5)), **limits))

    return asyncio.run(asyncio.wait_for(all_of_it(), 200))


# exactness


@settings(max_examples=10, deadline=None)
@given(
    sizes=st.lists(st.one_of(st.integers(60, 900), st.sampled_from([1, HOP, 2 * HOP, RATE])), min_size=3, max_size=5),
    block=st.sampled_from([1, 80, HOP, 441, RATE]),
)
def test_blocks_of_any_size_are_answered_exactly(sizes: list[int], block: int) -> None:
    async def work(stage: Stage) -> None:
        take = sung(1.0)
        client = await Client(stage, take, sizes, replace(START, block=block, settings={"key": 12})).connect()
        await (await client.sing()).end()
        delay = client.started.delay
        assert np.array_equal(client.stream, 2 * late_take(take, delay))
        assert delay == LATE + HOP - 1
        lengths = [len(client.outputs[seq].samples) for seq in range(client.blocks)]
        assert lengths == list(np.diff(client.cuts))
        last = flagged(client, Flags.LAST)
        assert last == list(range(client.blocks, len(client.outputs)))
        assert client.of(messages.Ended) == [messages.Ended(len(take), 0, 0)]
        assert client.pipe.closed is not None and client.pipe.closed[0] == CloseCode.ENDED
        assert stage.engine.forgotten == [client.started.session] and stage.desk.sessions() == 0

    run(work)


def test_the_delay_is_the_shortest_that_the_usual_block_allows() -> None:
    async def work(stage: Stage) -> None:
        for block, delay in ((HOP, LATE), (HOP // 4, LATE + HOP * 3 // 4), (1, LATE + HOP - 1), (2 * HOP, LATE)):
            client = await Client(stage, sung(0.1), [HOP], replace(LIVE, block=block)).connect()
            assert client.started.delay == delay
            assert client.started.delay_ms == pytest.approx(delay / 8)
            await (await client.sing()).end()

    run(work)


def test_one_block_at_a_time_gets_its_answer() -> None:
    async def work(stage: Stage) -> None:
        client = await Client(stage, sung(0.5), [HOP, 100, 33, 500], START).connect()
        while client.next < client.blocks:
            client.send()
            while client.received < client.next - 1:
                assert await client.hear(60)
        await client.end()
        assert np.array_equal(client.stream, late_take(client.take, client.started.delay))

    run(work)


def test_a_live_stream_of_odd_blocks() -> None:
    """Where the first one is odd, there is a longer delay; where others are, they wait for the usual length."""

    async def work(stage: Stage) -> None:
        for sizes, delay in (([100, 33, 500], LATE + HOP - 1), ([HOP, 100, 500], LATE)):
            client = await Client(stage, sung(0.5), sizes, LIVE).connect()
            await (await client.sing(real_time=True)).end()
            assert [applied.delay for applied in client.of(messages.Applied)] == [delay] * (delay != LATE)
            assert np.array_equal(client.stream, late_take(client.take, delay))

    run(work, slack=2.0)


def test_s16_is_rounded_once_each_way() -> None:
    async def work(stage: Stage) -> None:
        take = sung(0.5)
        client = await Client(stage, take, [HOP], replace(START, format="s16")).connect()
        await (await client.sing()).end()
        assert np.abs(client.stream - late_take(take, client.started.delay)).max() <= 1.1 / 32768

    run(work)


# changes


def test_changes_hold_from_the_block_that_is_told() -> None:
    async def work(stage: Stage) -> None:
        take = sung(1.2)
        client = await Client(stage, take, [HOP], START).connect()
        await client.sing(5)
        client.say(messages.Change({"key": 12}))
        await client.sing(10)
        client.say(messages.Bypass(True))
        await client.sing(15)
        client.say(messages.Bypass(False))
        client.say(messages.ChangeVoice("berta"))
        while len(client.of(messages.Applied)) < 4:
            assert await client.hear(60)
        await (await client.sing()).end()
        to_12, on, off, berta = client.of(messages.Applied)
        assert (to_12.seq, on.seq, off.seq) == (5, 10, 15) and berta.seq == 15
        assert (to_12.settings["key"], on.bypass, off.bypass, berta.voice) == (12, True, False, "berta")
        factors = np.concatenate([np.full(HOP, f) for f in [1] * 5 + [2] * 5 + [1] * 5 + [-2] * 30])
        expected = late_take(take, client.started.delay)
        assert np.allclose(client.stream, expected * factors[: len(expected)], atol=1e-6)
        assert flagged(client, Flags.BYPASS) == list(range(10, 15))

    run(work)


def test_what_cannot_be_is_refused_and_the_stream_goes_on() -> None:
    async def work(stage: Stage) -> None:
        client = await Client(stage, sung(0.4), [HOP], START).connect()
        for wrong in ({"key": 99}, {"kee": 1}, {"speaker": 7}):
            client.say(messages.Change(wrong))
        client.say(messages.ChangeVoice("nobody"))
        while client.codes().count("refused") < 3:  # of the two that take time, the newer one
            assert await client.hear(60)
        client.say(messages.Change({"key": 12}))
        await (await client.sing()).end()
        assert np.array_equal(client.stream, 2 * late_take(client.take, client.started.delay))

    run(work)


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


# deadlines


def test_a_slow_engine_is_answered_for_by_the_take_equally_late_and_nothing_clicks() -> None:
    async def work(stage: Stage) -> None:
        take = sung(3)
        client = await Client(stage, take, [HOP], replace(LIVE, settings={"key": -12})).connect()
        await client.sing(20, real_time=True)
        stage.engine.slow = 0.15
        await client.sing(24, real_time=True)
        stage.engine.slow = 0.0
        await client.sing(55, real_time=True)
        await client.end()
        late = flagged(client, Flags.LATE)
        assert late and client.of(messages.Ended)[0].late == len(late)
        assert client.of(messages.Stats)
        whole, expected = client.stream, late_take(take, client.started.delay)[: len(client.stream)]
        ok = np.isclose(whole, expected / 2, atol=1e-6) | np.isclose(whole, expected, atol=1e-6)
        assert (~ok).sum() <= len(late) * 2 * 40  # 5 ms of fading into and out of the take
        steps = np.abs(np.diff(whole))
        assert steps.max() <= 1.6 * np.abs(np.diff(take)).max()

    run(work, slack=0.03)


def test_a_server_that_stays_too_slow_says_so_and_rests() -> None:
    async def work(stage: Stage) -> None:
        stage.engine.slow = 0.25
        client = await Client(stage, sung(4), [HOP], LIVE).connect()
        await client.sing(60, real_time=True)
        assert "overloaded" in client.codes()
        skipped = sum(piece.skip for feed in stage.engine.feeds for piece in feed.pieces)
        assert skipped > 10
        client.pipe.vanish()

    run(work)


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
        for resume, owner in (
            (messages.Resume(client.started.session, "wrong"), None),
            (messages.Resume("nobody", client.started.secret), None),
            (messages.Resume(client.started.session, client.started.secret), "somebody"),
        ):
            pipe = Pipe()
            pipe.to_server.put_nowait(protocol.pack(resume))
            with pytest.raises(SessionGoneError):
                await stage.serve(pipe, owner)
        await client.connect()
        await (await client.sing()).end()
        with pytest.raises(SessionGoneError):
            await client.connect()

    run(work)


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


# bounds


def test_clients_that_break_the_rules_are_told_why() -> None:
    def block_of(seq: int) -> bytes:
        return protocol.pack_audio(Audio(seq, seq * HOP, np.zeros(HOP, np.float32)))

    block, second = block_of(0), block_of(1)
    cases: list[tuple[Start, list[str | bytes], CloseCode]] = [
        (START, [protocol.pack_audio(Audio(1, HOP, np.zeros(5, np.float32)))], CloseCode.BAD_MESSAGE),
        (START, [block, protocol.pack_audio(Audio(1, 7, np.zeros(5, np.float32)))], CloseCode.BAD_MESSAGE),
        (START, ["{"], CloseCode.BAD_MESSAGE),
        (START, [b"\x01"], CloseCode.BAD_MESSAGE),
        (START, [protocol.pack(START)], CloseCode.BAD_MESSAGE),
        (START, [protocol.pack(messages.End()), block], CloseCode.BAD_MESSAGE),
        (START, [protocol.pack(messages.Ping())] * 900, CloseCode.TOO_MUCH),
        (LIVE, [block_of(n) for n in range(99)], CloseCode.TOO_MUCH),
        (START, [block, block, second, protocol.pack(messages.End())], CloseCode.ENDED),
    ]  # fmt: skip

    async def work(stage: Stage) -> None:
        for start, said, code in cases:
            client = await Client(stage, sung(1), [HOP], start).connect()
            for message in said:
                client.pipe.to_server.put_nowait(message)
            await client.listen()
            assert client.pipe.closed[0] == code, (said[:1], client.pipe.closed)
            if code != CloseCode.ENDED:
                assert client.of(messages.Problem)[0].detail.startswith(client.pipe.closed[1][:60])

    run(work)


def test_silent_clients_and_clients_that_do_not_read_are_sent_away() -> None:
    async def work(stage: Stage) -> None:
        silent = await Client(stage, sung(1), [HOP], START).connect()
        deaf = await Client(stage, sung(1), [HOP], START).connect()
        deaf.pipe.reads.clear()
        deaf.send()
        assert (await deaf.served).code == CloseCode.SILENT
        assert (await silent.served).code == CloseCode.SILENT

    run(work, silence=0.8, unread=0.3)


def test_the_first_statistics_count_their_own_session() -> None:
    async def work(stage: Stage) -> None:
        client = await Client(stage, sung(0.2), [HOP], START).connect()
        while not client.of(messages.Stats):
            assert await client.hear(60)
        assert client.of(messages.Stats)[0].sessions == 1

    run(work)


def test_who_has_said_the_end_may_be_silent_until_all_is_out() -> None:
    async def work(stage: Stage) -> None:
        stage.engine.slow = 1.5
        client = await Client(stage, sung(0.2), [HOP], START).connect()
        await client.sing()
        await client.end()
        assert client.pipe.closed is not None and client.pipe.closed[0] == CloseCode.ENDED

    run(work, silence=0.4)


def test_a_client_in_no_hurry_is_not_read_from_while_too_much_waits() -> None:
    async def work(stage: Stage) -> None:
        stage.engine.slow = 0.2
        client = await Client(stage, sung(30), [HOP], START).connect()
        while client.next < client.blocks:
            client.send()
        await client.hear(2)
        assert client.pipe.to_server.qsize() > client.blocks - 300
        stage.engine.slow = 0.0
        await client.end()
        assert np.array_equal(client.stream, late_take(client.take, client.started.delay))
        flood = await Client(stage, sung(30), [HOP], START).connect()
        stage.engine.slow, flood.pipe.bytes = 0.2, 1 << 20
        while flood.next < flood.blocks:
            flood.send()
        await flood.listen()
        assert flood.pipe.closed[0] == CloseCode.TOO_MUCH

    run(work)


def test_who_finds_no_place_is_told_when_to_come_back() -> None:
    async def work(stage: Stage) -> None:
        stage.desk = LocalDesk(LiveConfig(free_sessions=1))
        await Client(stage, sung(1), [HOP], START).connect()
        with pytest.raises(BusyError) as busy:
            await Client(stage, sung(1), [HOP], START).connect()
        assert busy.value.retry_after > 0 and close_code(busy.value) == CloseCode.NO_CAPACITY
        with pytest.raises(SettingsError):
            await Client(stage, sung(1), [HOP], replace(START, settings={"key": 99})).connect()

    run(work)
