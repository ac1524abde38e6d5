"""Feeds of a session that follow each other before the first is answered; and sessions that are kept together."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from live_parts import HOP, GainEngine, Stage
from live_parts import RATE as SLOW_RATE
from live_parts import Client as PipeClient
from live_voices import TinyVoices, cut, feeds, take, whole
from virtual_time import run_in_virtual_time

from rocktop_ray.errors import AudioError, StageLostError, StateMissingError
from rocktop_ray.live.messages import Flags, Start
from rocktop_ray.settings import ConvertSettings
from serve_apps.config import LiveConfig
from serve_apps.live.compute.local import LocalEngine
from serve_apps.live.desk import LocalDesk
from serve_apps.live.engine import Fed, Feed, HopCost, Piece
from serve_apps.live.transport.paths import best


@pytest.fixture
def engine() -> Iterator[LocalEngine]:
    made = LocalEngine(TinyVoices(), LiveConfig(kept=4))
    yield made
    made.close()


def test_feeds_follow_each_other_and_leave_the_states_between_them(engine: LocalEngine) -> None:
    blocks = cut(take(0.6), 1764)
    sent = feeds("s", "anna", blocks)
    other = LocalEngine(TinyVoices())

    async def run() -> Any:
        answers = await asyncio.gather(*(engine.feed(feed) for feed in sent))
        later = [replace(sent[7], session="t", state=answers[6].state), *(replace(f, session="t") for f in sent[8:])]
        return answers, await asyncio.gather(*(other.feed(feed) for feed in later))

    answers, later = asyncio.run(run())
    assert all(answer.queues and answer.together == 1 for answer in answers)
    assert np.array_equal(np.concatenate([answer.waves[0] for answer in answers]), whole("anna", blocks))
    for answer, again in zip(answers[7:], later, strict=True):
        assert np.array_equal(answer.waves[0], again.waves[0])
    other.close()


def test_those_behind_a_feed_that_fails_ask_for_the_state(engine: LocalEngine) -> None:
    blocks = cut(take(0.4), 1764)
    sent = feeds("s", "anna", blocks)
    broken = replace(sent[2], pieces=(Piece(blocks[2] * np.float32(np.nan), ConvertSettings()),))

    async def run() -> Any:
        answers = await asyncio.gather(
            *(engine.feed(feed) for feed in [*sent[:2], broken, *sent[3:6]]), return_exceptions=True
        )
        assert [type(each) for each in answers] == [Fed, Fed, AudioError, *[StateMissingError] * 3]
        rest = [replace(sent[2], state=answers[1].state), *sent[3:]]
        return [*answers[:2], *await asyncio.gather(*(engine.feed(feed) for feed in rest))]

    assert np.array_equal(np.concatenate([each.waves[0] for each in asyncio.run(run())]), whole("anna", blocks))


def test_one_that_is_given_up_does_not_mix_the_others(engine: LocalEngine) -> None:
    blocks = cut(take(0.4), 1764)
    sent = feeds("s", "anna", blocks)

    async def run() -> Any:
        first = await engine.feed(sent[0])
        given_up, behind = asyncio.create_task(engine.feed(sent[1])), asyncio.create_task(engine.feed(sent[2]))
        await asyncio.sleep(0)
        given_up.cancel()
        found = (await asyncio.gather(behind, return_exceptions=True))[0]
        # It was computed already, or it was not: then the one behind it must not be, either.
        if isinstance(found, Fed):
            assert np.array_equal(found.waves[0], whole("anna", blocks)[2 * 1764 : 3 * 1764])
        else:
            assert isinstance(found, StateMissingError)
        rest = [replace(sent[1], state=first.state), *sent[2:]]
        return [first, *[await engine.feed(feed) for feed in rest]]

    assert np.array_equal(np.concatenate([each.waves[0] for each in asyncio.run(run())]), whole("anna", blocks))


def test_another_voice_waits_for_what_was_given_before(engine: LocalEngine) -> None:
    blocks = cut(take(0.8), 1764)
    sent = feeds("s", "anna", blocks[:10]) + feeds("s", "berta", blocks)[10:]

    async def run(session: str, together: bool) -> list[Fed]:
        own = [replace(feed, session=session) for feed in sent]
        if together:
            return await asyncio.gather(*(engine.feed(feed) for feed in own))
        return [await engine.feed(feed) for feed in own]

    one_by_one, together = asyncio.run(run("a", False)), asyncio.run(run("b", True))
    for alone, beside in zip(one_by_one, together, strict=True):
        assert np.array_equal(alone.waves[0], beside.waves[0]) and alone.delays == beside.delays


class FarEngine(GainEngine):
    """One feed after the other, each in ``slow`` seconds; and as long on the way back, side by side."""

    def __init__(self, slow: float, *, queues: bool) -> None:
        super().__init__()
        self.slow, self._queues = slow, queues
        self._turn = asyncio.Lock()
        self.under_way = self.most = 0

    async def feed(self, feed: Feed, spare: Feed | None = None) -> Fed:
        self.under_way += 1
        self.most = max(self.most, self.under_way)
        try:
            async with self._turn:
                fed = await super().feed(feed, spare)
            await asyncio.sleep(self.slow)
            return replace(fed, queues=self._queues)
        finally:
            self.under_way -= 1


@pytest.mark.parametrize("queues", [True, False])
def test_the_way_back_is_not_waited_for(queues: bool) -> None:
    """Blocks of 40 ms; 25 to compute and 25 back: one at a time falls behind, two keep up where they may queue."""

    async def work() -> None:
        engine = FarEngine(0.025, queues=queues)
        stage = Stage(engine, LocalDesk(LiveConfig(resume_seconds=5)), slack=0.1)
        samples = np.sin(np.arange(2 * SLOW_RATE) / 9).astype(np.float32)
        client = await PipeClient(stage, samples, [HOP], Start("anna", SLOW_RATE, "f32", HOP, "live")).connect()
        await (await client.sing(real_time=True)).end()
        late = np.concatenate([np.zeros(client.started.delay, np.float32), samples])[: len(client.stream)]
        assert np.allclose(client.stream[: len(late)], late, atol=1e-6)
        assert engine.most == (2 if queues else 1)
        many = [feed for feed in engine.feeds if len(feed.pieces) > 1]
        assert (len(many) < 10) == queues  # what has waited is fed together

    run_in_virtual_time(work())


def test_losses_with_two_under_way_are_repaired() -> None:
    async def work() -> None:
        engine = FarEngine(0.005, queues=True)
        stage = Stage(engine, LocalDesk(LiveConfig(resume_seconds=5)))
        samples = np.sin(np.arange(2 * SLOW_RATE) / 9).astype(np.float32)
        client = await PipeClient(stage, samples, [HOP], Start("anna", SLOW_RATE, "f32", 1, "free")).connect()
        for at in range(5, client.blocks, 7):
            await client.sing(at)
            engine.kept.clear()
            if at % 2:
                engine.fails.append(StageLostError("killed"))
        await (await client.sing()).end()
        late = np.concatenate([np.zeros(client.started.delay, np.float32), samples])
        assert np.allclose(client.stream, late[: len(client.stream)], atol=1e-6)
        assert engine.most == 2
        assert not any(audio.flags & (Flags.LATE | Flags.LOST) for audio in client.outputs.values())

    run_in_virtual_time(work())


def test_sessions_stay_together_while_there_is_room() -> None:
    def path(name: str, *, cost: HopCost | None, silent: bool = False, leaving: bool = False) -> Any:
        voices = {} if cost is None else {"anna@1": cost}
        return SimpleNamespace(replica=name, voices=voices, silent=silent, leaving=leaving)

    cost = HopCost("anna@1", 0.005, 0.003, 0.04)  # room for 5 in half of 40 ms
    a, b, c = path("a", cost=cost), path("b", cost=cost), path("c", cost=None)

    def found(among: list[Any], **sessions: int) -> str:
        chosen = best(among, "anna@1", sessions)
        assert chosen is not None
        return chosen.replica

    assert found([b, a, c]) == "a" and found([a, b, c], b=1) == "b" and found([a, b, c], a=4, b=1) == "a"
    assert found([a, b, c], a=5) == "b" and found([a, b, c], a=7, b=6) == "b" and found([a, b, c], a=5, c=1) == "b"
    assert found([path("d", cost=cost, silent=True), c], d=1) == "c"
    assert found([path("d", cost=cost, leaving=True), b], d=1) == "b"
    assert best([], "anna@1", {}) is None
