"""Who computes live sessions, without Ray: batches, kept streams, states that move."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from dataclasses import replace

import numpy as np
import pytest
from live_voices import RATE, TinyVoices, cut, feeds, take, tiny_converter, whole
from virtual_time import run_in_virtual_time

from actors.live import LiveVoice
from rocktop_ray.errors import (
    AudioError,
    SettingsError,
    StateMissingError,
    StreamStateError,
)
from rocktop_ray.live.converter import LiveConverter
from rocktop_ray.live.layout import LiveLayout
from rocktop_ray.live.stream import LiveStream
from rocktop_ray.protocols import Array
from rocktop_ray.settings import ConvertSettings
from serve_apps.config import LiveConfig
from serve_apps.live.compute import kept
from serve_apps.live.compute.kept import KeptStreams
from serve_apps.live.compute.local import LocalEngine
from serve_apps.live.engine import Fed, Feed, Piece
from serve_apps.orders import VoiceRef

ANNA, BERTA = VoiceRef("anna", "anna"), VoiceRef("berta", "berta")


@pytest.fixture
def engine() -> Iterator[LocalEngine]:
    made = LocalEngine(TinyVoices(), LiveConfig(kept=4))
    yield made
    made.close()


async def fed_all(engine: LocalEngine, sent: list[Feed]) -> tuple[Array, list[Fed]]:
    answers = [await engine.feed(feed) for feed in sent]
    return np.concatenate([wave for answer in answers for wave in answer.waves]), answers


def test_a_session_is_the_librarys_stream_whatever_the_pieces(engine: LocalEngine) -> None:
    blocks = cut(take(1.0), 1764, 5000, 1, 777)
    expected = whole("anna", blocks)
    for at_once in (1, 3):
        wave, answers = asyncio.run(fed_all(engine, feeds(f"s{at_once}", "anna", blocks, at_once=at_once)))
        assert np.array_equal(wave, expected)
        assert all(answer.seconds > 0 and answer.waited >= 0 and answer.replica == "here" for answer in answers)


def test_another_process_goes_on_from_the_state_to_the_bit(engine: LocalEngine) -> None:
    other = LocalEngine(TinyVoices())
    blocks = cut(take(0.8), 1764)
    expected = whole("anna", blocks)
    sent = feeds("s", "anna", blocks)

    async def moving() -> list[Array]:
        waves, state = [], None
        for n, feed in enumerate(sent):
            here = (engine, other)[n // 5 % 2]
            if n % 5 == 0 and n:
                with pytest.raises(StateMissingError):
                    await here.feed(feed)
                feed = replace(feed, state=state)
            answer = await here.feed(feed)
            waves += answer.waves
            state = answer.state
        return waves

    assert np.array_equal(np.concatenate(asyncio.run(moving())), expected)
    other.close()


def test_kept_streams_are_few_and_never_of_another_block(engine: LocalEngine) -> None:
    blocks = cut(take(0.2), 1764)

    async def run() -> None:
        for n in range(5):
            await engine.feed(feeds(f"s{n}", "anna", blocks)[0])
        with pytest.raises(StateMissingError):
            await engine.feed(feeds("s0", "anna", blocks)[1])
        with pytest.raises(StateMissingError):
            await engine.feed(feeds("s4", "anna", blocks)[2])
        await engine.feed(feeds("s3", "anna", blocks)[1])
        await engine.forget("s3")
        with pytest.raises(StateMissingError):
            await engine.feed(feeds("s3", "anna", blocks)[2])

    asyncio.run(run())


def test_streams_that_nobody_uses_are_given_up_with_their_voices(
    engine: LocalEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their gateway died, or they went to another replica: nobody says that they have ended."""
    blocks = cut(take(0.4), 1764)

    async def run() -> None:
        held = [feeds("s", "anna", blocks), feeds("t", "anna", blocks)]
        for sent in held:
            await engine.feed(sent[0])
        await engine.feed(held[0][1])
        monkeypatch.setattr(kept, "UNUSED_SECONDS", 0.01)
        engine._kept._looks = float("-inf")
        state = (await engine.feed(held[0][2])).state
        async with asyncio.timeout(60):
            while len(engine._kept):
                await asyncio.sleep(0.01)
        with pytest.raises(StateMissingError):
            await engine.feed(held[0][3])
        await engine.feed(replace(held[0][3], state=state))

    asyncio.run(run())


def test_a_feed_that_takes_long_is_not_given_up() -> None:
    class Under:
        def __init__(self) -> None:
            self.future: Future[None] = Future()

    async def run() -> None:
        streams, run, short = KeptStreams(4), Under(), Under()
        short.future.set_result(None)
        streams.put("long", 1, run)  # type: ignore[arg-type]  # no more of it is looked at
        streams.put("short", 1, short)  # type: ignore[arg-type]
        await asyncio.sleep(1.8 * kept.UNUSED_SECONDS)
        assert len(streams) == 1
        run.future.set_result(None)
        await asyncio.sleep(0.4 * kept.UNUSED_SECONDS)
        assert len(streams) == 1, "since it was done"
        await asyncio.sleep(1.6 * kept.UNUSED_SECONDS)
        assert not len(streams)

    run_in_virtual_time(run())


def test_sessions_are_computed_together_and_change_nothing(engine: LocalEngine) -> None:
    takes = [cut(take(0.6, seed), 1764) for seed in range(4)]
    sent = [feeds(f"s{n}", ("anna", "berta")[n == 3], blocks) for n, blocks in enumerate(takes)]

    async def together() -> list[tuple[Array, list[Fed]]]:
        busy = threading.Event()
        engine._batcher.call(busy.wait)
        coming = asyncio.gather(*(fed_all(engine, own) for own in sent))
        while engine._batcher.waiting < len(sent):
            await asyncio.sleep(0.001)
        busy.set()
        return await coming

    results = asyncio.run(together())
    for n, (wave, _) in enumerate(results):
        assert np.abs(wave - whole(("anna", "berta")[n == 3], takes[n])).max() < 1e-5
    assert [answers[0].together for _, answers in results[:3]] == [3, 3, 3]
    assert all(answer.together == 1 for answer in results[3][1])


def test_those_with_deadlines_go_first(engine: LocalEngine) -> None:
    long = feeds("long", "anna", [take(8.0)], live=False)[0]
    short = feeds("short", "anna", cut(take(0.2), 1764), at_once=5)[0]
    ended: list[str] = []

    async def run() -> None:
        await engine.open(ANNA, RATE, 1, ConvertSettings())
        both = [asyncio.create_task(engine.feed(one)) for one in (long, short)]
        for task, one in zip(both, (long, short), strict=True):
            task.add_done_callback(lambda _, one=one: ended.append(one.session))
        await asyncio.gather(*both)

    asyncio.run(run())
    assert ended == ["short", "long"]


def test_one_that_fails_fails_alone_and_can_go_on(engine: LocalEngine) -> None:
    blocks = cut(take(0.4), 1764)
    good, bad = feeds("good", "anna", blocks), feeds("bad", "anna", blocks)
    broken = replace(bad[2], pieces=(Piece(blocks[2] * np.float32(np.nan), ConvertSettings()),))

    async def run() -> Array:
        state = (await fed_all(engine, bad[:2]))[1][-1].state
        wave, *failed = await asyncio.gather(
            fed_all(engine, good),
            engine.feed(broken),
            engine.feed(replace(bad[2], session="new", seq=0, pieces=(Piece(blocks[0], ConvertSettings(speaker=9)),))),
            engine.feed(replace(bad[2], session="none", pieces=())),
            engine.feed(replace(bad[2], state=b"\x05\0\0\0junk!")),
            return_exceptions=True,
        )
        assert [type(error) for error in failed] == [AudioError, SettingsError, AudioError, StreamStateError]
        await fed_all(engine, [replace(bad[2], state=state), *bad[3:]])
        return wave[0]

    assert np.array_equal(asyncio.run(run()), whole("anna", blocks))


def test_each_piece_tells_by_how_much_it_is_late() -> None:
    """The old voice's delay until the new one has taken over, also where both are in one feed."""
    blocks, settings = cut(take(2.0), 1764), ConvertSettings()
    layout = LiveLayout(hop=4, ahead=20, left=20, acoustic_left=20, pitch_left=4)
    early, late = tiny_converter("anna"), LiveConverter(tiny_converter("berta").parts, layout, name="berta")

    class Both(TinyVoices):
        def _voice(self, ref: VoiceRef) -> LiveVoice:
            return LiveVoice(early if ref.id == "anna" else late, settings)

    engine = LocalEngine(Both())
    try:
        sent = feeds("s", "anna", blocks[:10], at_once=10) + feeds("s", "berta", blocks, at_once=10)[1:]
        delays = [delay for answer in asyncio.run(fed_all(engine, sent))[1] for delay in answer.delays]
    finally:
        engine.close()
    stream, wanted = LiveStream(early, settings, rate=RATE), []
    for number, block in enumerate(blocks):
        if number == 10:
            stream.switch(late)
        wanted.append(stream.delay)
        stream.feed(block)
    assert delays == wanted and len(set(wanted)) == 2 and wanted[12] == wanted[0]


def test_the_voice_changes_under_way_and_moves_while_it_does(engine: LocalEngine) -> None:
    other = LocalEngine(TinyVoices())
    blocks = cut(take(1.2), 1764)
    sent = feeds("s", "anna", blocks[:10]) + feeds("s", "berta", blocks)[10:]

    async def run(moves: bool) -> Array:
        waves, state = [], None
        for n, feed in enumerate(sent):
            here = other if moves and n >= 12 else engine
            answer = await here.feed(replace(feed, session=f"s{moves}", state=state if moves and n == 12 else None))
            waves += answer.waves
            state = answer.state
        assert answer.delays[-1] == (await engine.open(BERTA, RATE, 1, ConvertSettings())).delay
        return np.concatenate(waves)

    stayed, moved = asyncio.run(run(False)), asyncio.run(run(True))
    assert np.array_equal(stayed, moved)
    later = slice(1764 * 22, None)
    assert np.array_equal(stayed[: 1764 * 10], whole("anna", blocks)[: 1764 * 10])
    assert np.abs(stayed[later] - whole("anna", blocks)[later]).max() > 0.01
    other.close()


def test_opening_tells_what_a_stream_will_be_like(engine: LocalEngine) -> None:
    facts = asyncio.run(engine.open(ANNA, RATE, 1764, ConvertSettings()))
    assert facts.delay > 0 and facts.hop == 1764 and facts.settings_default.key == 1.0
    assert facts.cost.voice == "anna" and facts.cost.hop == 0.04 and 0 < facts.cost.fixed + facts.cost.each < 5
    for rate, settings in ((7000, ConvertSettings()), (RATE, ConvertSettings(speaker=9))):
        with pytest.raises(SettingsError):
            asyncio.run(engine.open(ANNA, rate, 1, settings))


def test_a_stream_whose_formants_move_costs_more(engine: LocalEngine) -> None:
    async def run() -> None:
        plain = (await engine.open(ANNA, RATE, 1764, ConvertSettings())).cost
        moved = (await engine.open(ANNA, RATE, 1764, ConvertSettings(formant=-2.0))).cost
        assert plain.formant == 0 and moved.formant > 0 and replace(moved, formant=0.0) == plain

    asyncio.run(run())
