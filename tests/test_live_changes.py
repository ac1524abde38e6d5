"""Changes of a live session that take time to be made ready: each is answered, none is lost, the desk hears of them."""

from __future__ import annotations

import asyncio
import json
import struct
from dataclasses import asdict, replace
from typing import Any

import live_parts
import numpy as np
import pytest
from live_parts import HOP, LATE, LIVE, RATE, START, Client, GainEngine, Stage, late_take, run, sung

from rocktop_ray.live.messages import Applied, Change, ChangeVoice, Flags, Notice, Stats
from rocktop_ray.settings import ConvertSettings
from serve_apps.live.engine import HopCost, StreamFacts
from serve_apps.live.session.course import fresh_save
from serve_apps.live.session.parking import Head, pack_save, unpack_save
from serve_apps.live.session.tape import How
from serve_apps.orders import VoiceRef

SLOW = 3.0
"""Seconds that another voice, or speaker, takes to be ready in these tests."""


@pytest.fixture(autouse=True)
def slowly(monkeypatch: pytest.MonkeyPatch) -> None:
    """All voices but ``anna`` are found after a while."""
    at_once = live_parts.find

    async def find(name: str) -> VoiceRef:
        if name != "anna":
            await asyncio.sleep(SLOW)
        return await at_once(name)

    monkeypatch.setattr(live_parts, "find", find)


class Settling(GainEngine):
    """Speakers take a while; a moved formant costs ``dear`` seconds of a hop."""

    dear = 1e-3

    async def open(self, voice: VoiceRef, rate: int, multiple: int, settings: ConvertSettings) -> StreamFacts:
        await asyncio.sleep(SLOW if settings.speaker else 0)
        facts = await super().open(voice, rate, multiple, settings)
        return replace(facts, cost=replace(facts.cost, formant=self.dear if settings.formant else 0.0))


async def answers_to(client: Client, *asked: Change | ChangeVoice) -> list[Applied | Notice]:
    """What is said to changes that are asked for at once."""
    for message in asked:
        client.say(message)
    return await answered(client, len(asked))


async def answered(client: Client, count: int) -> list[Applied | Notice]:
    """The next answers to changes; nothing more comes for a while."""
    seen = len(client.messages)

    def fresh() -> list[Any]:
        return [message for message in client.messages[seen:] if isinstance(message, Applied | Notice)]

    while len(fresh()) < count:
        assert await client.hear(60), "a change was not answered"
    end = asyncio.get_running_loop().time() + 2 * SLOW
    while (left := end - asyncio.get_running_loop().time()) > 0:
        await client.hear(left)
    assert len(fresh()) == count
    return fresh()


def in_short(said: list[Applied | Notice]) -> list[str]:
    """The voice and what is not as by itself, or ``refused``."""
    usual = asdict(ConvertSettings())
    return [
        (
            " ".join(
                [each.voice, *(f"{name}={value}" for name, value in each.settings.items() if value != usual[name])]
            )
            if isinstance(each, Applied)
            else each.code
        )
        for each in said
    ]


def cost_at_the_desk(stage: Stage, client: Client) -> HopCost:
    return stage.desk._seats[client.started.session].cost


BERTA, NOBODY, KEY, PROTECT = ChangeVoice("berta"), ChangeVoice("nobody"), Change({"key": 5}), Change({"protect": 0.1})


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ([BERTA, KEY, PROTECT], ["berta", *["berta key=5 protect=0.1"] * 2]),
        ([Change({"speaker": 1, "key": 5}), PROTECT], ["anna key=5 speaker=1", "anna key=5 protect=0.1 speaker=1"]),
        ([NOBODY, KEY, PROTECT], ["refused", "anna key=5", "anna key=5 protect=0.1"]),
        ([Change({"speaker": 7}), BERTA, KEY], ["refused", "berta", "berta key=5"]),
        ([BERTA, NOBODY, KEY], ["berta", "refused", "berta key=5"]),
        ([BERTA, ChangeVoice("anna"), KEY], ["anna", "anna", "anna key=5"]),
        ([BERTA, Change({"key": 99}), KEY], ["refused", "berta", "berta key=5"]),
    ],
    ids=["voice-first", "speaker-first", "voice-refused", "speaker-refused", "newer-refused", "back", "out-of-range"],
)
def test_changes_that_come_while_another_is_made_ready_are_answered_and_hold(
    asked: list[Change | ChangeVoice], said: list[str]
) -> None:
    async def work(stage: Stage) -> None:
        stage.engine = Settling()
        client = await Client(stage, sung(1), [HOP], START).connect()
        assert in_short(await answers_to(client, *asked)) == said

    run(work)


def test_a_fault_is_an_answer_too(monkeypatch: pytest.MonkeyPatch) -> None:
    async def find(name: str) -> VoiceRef:
        if name == "berta":
            raise OSError("the disk is gone")
        return VoiceRef("anna@1", "anna")

    monkeypatch.setattr(live_parts, "find", find)

    async def work(stage: Stage) -> None:
        client = await Client(stage, sung(1), [HOP], START).connect()
        assert in_short(await answers_to(client, BERTA, KEY)) == ["refused", "anna key=5"]

    run(work)


@pytest.mark.parametrize("killed", [False, True])
def test_a_change_that_is_not_ready_when_the_connection_breaks_is_made_ready_after_the_resume(killed: bool) -> None:
    """The client has forgotten it by then, as the server has all blocks before it."""

    async def work(stage: Stage) -> None:
        client = await Client(stage, sung(9), [HOP], START).connect()
        await client.sing(3)
        client.say(BERTA)
        client.say(KEY)
        await client.sing(40)
        while not client.of(Stats) or client.of(Stats)[-1].kept < 10:
            assert await client.hear(60)
        assert not client.of(Applied)

        async def never(*_: Any, **__: Any) -> None:
            """A gateway that was killed parks nothing."""

        parked = stage.desk.park
        stage.desk.park = never if killed else parked
        client.pipe.vanish()
        await client.served
        stage.desk.park = parked
        await client.connect()
        assert client.started.voice == "anna" and client.started.next > 10
        assert in_short(await answered(client, 2)) == ["berta key=5"] * 2

    run(work)


def test_what_waits_is_parked_and_saves_without_it_are_read() -> None:
    how = How(VoiceRef("anna@1", "anna"), ConvertSettings())
    save = fresh_save(Head("s", None, RATE, "f32", HOP, HOP, "live"), how, {}, 9)
    save = replace(save, wishes=(BERTA, Change({"key": 5, "scale": "major"})))
    packed = pack_save(save)
    assert unpack_save(packed).wishes == save.wishes
    magic, (size,) = packed.index(b"\n") + 1, struct.unpack_from("<I", packed, packed.index(b"\n") + 1)
    header = json.loads(packed[magic + 4 : magic + 4 + size])
    del header["wishes"]
    text = json.dumps(header).encode()
    old = packed[:magic] + struct.pack("<I", len(text)) + text + packed[magic + 4 + size :]
    assert unpack_save(old).wishes == () and unpack_save(old).how == how


def test_a_voice_that_waits_while_the_first_block_is_uneven_has_the_delay_that_is_told() -> None:
    async def work(stage: Stage) -> None:
        client = await Client(stage, sung(8), [100, HOP], LIVE).connect()
        client.say(BERTA)
        await client.sing(200, real_time=True)
        assert [(applied.voice, applied.delay) for applied in client.of(Applied)] == [
            ("anna", LATE + HOP - 1),
            ("berta", LATE + HOP - 1),
        ]
        seq = client.of(Applied)[-1].seq
        await client.end()
        flush = [audio for audio in client.outputs.values() if audio.flags & Flags.LAST]
        assert sum(len(audio.samples) for audio in flush) == LATE + HOP - 1
        whole = late_take(client.take[: client.cuts[client.next]], LATE + HOP - 1)
        signs = np.where(np.arange(len(whole)) < client.cuts[seq], 1, -1)
        assert np.array_equal(client.stream, whole * signs)

    run(work, slack=2.0)


def test_the_desk_counts_the_voice_that_is_sung_with_after_a_quick_change_back() -> None:
    async def work(stage: Stage) -> None:
        admit = stage.desk.admit

        async def slowly(*args: Any, **options: Any) -> None:
            await admit(*args, **options)
            await asyncio.sleep(0.3)  # the way back

        client = await Client(stage, sung(1), [HOP], LIVE).connect()
        stage.desk.admit = slowly
        client.say(BERTA)
        while cost_at_the_desk(stage, client).voice != "berta@1":
            await asyncio.sleep(0.1)
        client.say(ChangeVoice("anna"))
        while not (applied := client.of(Applied)) or applied[-1].voice != "anna":
            assert await client.hear(60)
        assert cost_at_the_desk(stage, client).voice == "anna@1"

    run(work)


def test_a_formant_that_is_moved_is_let_in_first() -> None:
    async def work(stage: Stage) -> None:
        stage.engine = Settling()
        client = await Client(stage, sung(1), [HOP], LIVE).connect()
        assert cost_at_the_desk(stage, client).formant == 0
        for formant, cost in ((3, 1e-3), (0, 0), (-2, 1e-3)):
            assert isinstance((await answers_to(client, Change({"formant": formant})))[0], Applied)
            assert cost_at_the_desk(stage, client).formant == cost
        await answers_to(client, Change({"formant": 0}))
        stage.engine.dear = 1.0
        (said,) = await answers_to(client, Change({"formant": 1}))
        assert isinstance(said, Notice) and said.code == "refused"
        assert cost_at_the_desk(stage, client).formant == 0
        (said,) = await answers_to(client, KEY)
        assert isinstance(said, Applied) and (said.settings["formant"], said.settings["key"]) == (0, 5)

    run(work)
