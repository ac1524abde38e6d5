"""One live session, from its first block to its end: exact, in time, changed, bounded."""

from __future__ import annotations

import asyncio
import struct
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from live_parts import HOP, LATE, LIVE, RATE, START, Client, GainEngine, Stage, flagged, late_take, run, sung

from rocktop_ray.errors import BusyError, SettingsError
from rocktop_ray.live import messages, protocol
from rocktop_ray.live.messages import Audio, CloseCode, Flags, Start
from rocktop_ray.protocols import Array
from rocktop_ray.settings import ConvertSettings
from serve_apps.config import LiveConfig
from serve_apps.live.desk import LocalDesk
from serve_apps.live.engine import Fed, Feed, StreamFacts
from serve_apps.live.session.endings import close_code
from serve_apps.orders import VoiceRef

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


class TurningEngine(GainEngine):
    """Voice ``berta`` is ``late`` and takes over ten pieces after it was asked for; both give the take as it is."""

    def __init__(self, late: int) -> None:
        super().__init__()
        self.late = late
        self.streams: dict[str, tuple[Array, int]] = {}

    async def open(self, voice: VoiceRef, rate: int, multiple: int, settings: ConvertSettings) -> StreamFacts:
        facts = await super().open(voice, rate, multiple, settings)
        return replace(facts, delay=self.late if voice.name == "berta" else LATE)

    async def feed(self, feed: Feed, spare: Feed | None = None) -> Fed:
        await asyncio.sleep(self.slow)
        take, left = np.zeros(self.late + LATE, np.float32), -1
        if feed.state is not None:
            take, left = np.frombuffer(feed.state[4:], "<f4"), struct.unpack("<i", feed.state[:4])[0]
        elif feed.seq:
            take, left = self.streams[feed.session]
        waves, delays = [], []
        for piece in feed.pieces:
            if feed.voice.name == "berta":
                left = 10 if left < 0 else max(0, left - 1)
            delays.append(LATE if left else self.late)
            take, end = np.concatenate([take, piece.samples]), len(take)
            waves.append(take[end - delays[-1] :][: len(piece.samples)])
        self.streams[feed.session] = (take, left)
        state = struct.pack("<i", left) + take.tobytes() if feed.want_state else None
        return Fed(tuple(waves), tuple(delays), state, 0.0, 0.0, "here")


@pytest.mark.parametrize("pace", ["live", "free"])
@pytest.mark.parametrize("late", [LATE + 150, LATE - 60])
@pytest.mark.parametrize(("blocks", "breaks"), [(60, False), (60, True), (30, False), (24, False)])
def test_another_delay_is_told_when_it_is_heard(pace: messages.Pace, late: int, blocks: int, breaks: bool) -> None:
    """From the block on that is told, and not before; also over a resume, and where the end comes before the voice."""

    async def work(stage: Stage) -> None:
        stage.engine = TurningEngine(late)
        take = np.arange(1, blocks * HOP + 1, dtype=np.float32)
        client = await Client(stage, take, [HOP], replace(START, pace=pace)).connect()
        await client.sing(20, real_time=True)
        client.say(messages.ChangeVoice("berta"))
        await client.sing(24, real_time=True)
        if breaks:
            client.pipe.vanish()
            await client.served
            await client.connect()
            assert client.started.delay == LATE
        await (await client.sing(real_time=True)).end()
        told = [(applied.seq, applied.delay) for applied in client.of(messages.Applied)]
        taken_over = blocks == 60 or (blocks == 30 and late > LATE)  # in a flush, only by one that makes it longer
        assert told == [(20, LATE), (30, late)][: 1 + taken_over]
        seq, delay = told[-1]
        for number, audio in list(client.outputs.items())[: blocks + taken_over]:
            first = audio.position - (delay if number >= seq else LATE) + 1
            wanted = np.arange(first, first + len(audio.samples))
            assert np.array_equal(audio.samples, np.where((wanted > 0) & (wanted <= len(take)), wanted, 0))
        assert len(client.stream) == len(take) + delay, "the flush"

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
