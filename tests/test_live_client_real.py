"""The client with what it talks to in earnest: the gateway's live route, and a stream in this process."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from live_calls import heard
from live_server import LiveServer, serving_live
from live_voices import tiny_converter

from rocktop_ray.errors import SettingsError, VoiceNotFoundError
from rocktop_ray.live.blocking import stream
from rocktop_ray.live.client import LiveClient
from rocktop_ray.live.events import Event, Lost, Resumed
from rocktop_ray.live.local import LocalClient
from rocktop_ray.live.messages import Applied, Audio, Ended, Flags, Notice, Start
from rocktop_ray.live.stream import LiveStream
from rocktop_ray.settings import ConvertSettings

RATE = 44_100
BLOCK = 1764
FREE = Start("anna", RATE, block=BLOCK, pace="free", settings={"key": 1.0})


def tone(seconds: float) -> np.ndarray:
    time = np.arange(round(seconds * RATE)) / RATE
    return (0.3 * np.sin(2 * np.pi * 220 * time) * (1 + np.sin(7 * time)) / 2).astype(np.float32)


def cut(take: np.ndarray) -> list[np.ndarray]:
    return [take[start : start + BLOCK] for start in range(0, len(take), BLOCK)]


def whole(answers: list[Audio]) -> np.ndarray:
    assert [audio.seq for audio in answers] == list(range(len(answers)))
    return np.concatenate([audio.samples for audio in answers])


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    with serving_live(tmp_path_factory.mktemp("live")) as running:
        yield running


@pytest.fixture(scope="module")
def unbroken(server: LiveServer) -> np.ndarray:
    """Two seconds through the route, undisturbed."""
    return whole(list(stream(server.url, FREE, cut(tone(2)))))


def test_the_route_answers_as_the_stream_itself_does(server: LiveServer, unbroken: np.ndarray) -> None:
    voice = next(iter(server.engine._refs))
    direct = LiveStream(tiny_converter(voice), ConvertSettings(key=1.0), rate=RATE)
    assert len(unbroken) == 2 * RATE + direct.delay
    made = [direct.feed(block) for block in cut(tone(2))[:50]]
    assert np.abs(unbroken[: 50 * BLOCK] - np.concatenate(made)).max() < 1e-4  # the project's tolerance for streams
    assert np.abs(unbroken).max() > 0.01


@pytest.mark.parametrize("format", ["f32", "s16"])
def test_a_drop_is_not_heard_through_the_route(server: LiveServer, format: str) -> None:
    events: list[Event] = []
    take = tone(9)  # more than 30 blocks, those that may wait to be taken, and the window: no drop comes after the end
    unbroken = whole(list(stream(server.url, FREE, cut(take))))

    async def main() -> list[Audio]:
        start = replace(FREE, format=format)  # type: ignore[arg-type]
        client = LiveClient(server.url, start, on_event=events.append)
        dialled = client._connect
        sockets = []

        async def connect(first):  # type: ignore[no-untyped-def]
            connection, started = await dialled(first)
            sockets.append(connection._socket)
            return connection, started

        client._connect = connect  # type: ignore[method-assign]
        answers = []
        async with client:
            async for audio in client.convert(cut(take)):
                answers.append(audio)
                if len(answers) in (5, 30):
                    sockets[-1].transport.abort()
        return answers

    result = whole(asyncio.run(main()))
    assert len([event for event in events if isinstance(event, Lost)]) == 2
    assert len([event for event in events if isinstance(event, Resumed)]) == 2
    assert isinstance(events[-1], Ended) and events[-1].samples == len(take)
    assert len(result) == len(unbroken)
    assert np.abs(result - unbroken).max() < (1e-5 if format == "f32" else 2e-4)


def test_another_voice_takes_over_and_one_that_is_not_there_does_not(server: LiveServer, unbroken: np.ndarray) -> None:
    async def main(voice: str) -> tuple[np.ndarray, list[Event]]:
        events: list[Event] = []
        told = asyncio.Event()

        def hear(event: Event) -> None:
            events.append(event)
            if isinstance(event, Applied | Notice):  # and not for the statistics
                told.set()

        async with LiveClient(server.url, FREE, on_event=hear) as client:

            async def feed() -> None:
                for number, block in enumerate(cut(tone(2))):
                    if number == 1:
                        await client.change_voice(voice)
                    if number == 5:
                        await asyncio.wait_for(told.wait(), 60)
                    await client.send(block)
                await client.end()

            return whole(await heard(client, feed())), events

    other, events = asyncio.run(main("berta"))
    assert any(isinstance(event, Applied) and event.voice == "berta" for event in events)
    assert len(other) >= 2 * RATE and np.abs(other[RATE : 2 * RATE] - unbroken[RATE : 2 * RATE]).max() > 1e-2
    same, events = asyncio.run(main("nobody"))
    assert any("refused" in str(event) for event in events) and not any(isinstance(event, Applied) for event in events)
    assert np.abs(same - unbroken).max() < 1e-5


def test_changes_and_refusals_through_the_route(server: LiveServer) -> None:
    async def main() -> tuple[list[Audio], list[Event]]:
        events: list[Event] = []
        async with LiveClient(server.url, FREE, on_event=events.append) as client:
            blocks = cut(tone(2))

            async def feed() -> None:
                for number, block in enumerate(blocks):
                    if number == 10:
                        await client.bypass(True)
                    if number == 20:
                        await client.bypass(False)
                        await client.change({"key": 5.0})
                    if number == 30:
                        await client.change({"key": 99.0})  # refused with a notice; the stream goes on
                    await client.send(block)
                await client.end()

            return await heard(client, feed()), events

    answers, events = asyncio.run(main())
    result = whole(answers)
    applied = [event for event in events if isinstance(event, Applied)]
    assert [event.bypass for event in applied][:2] == [True, False] and applied[-1].settings["key"] == 5.0
    assert any("refused" in str(event) for event in events)
    delay = len(result) - 2 * RATE
    assert Flags.BYPASS in answers[15].flags
    take = tone(2)[15 * BLOCK - delay : 16 * BLOCK - delay]  # at 48 kHz in between
    assert np.abs(result[15 * BLOCK : 16 * BLOCK] - take).max() < 1e-3
    for start, kind in (
        (replace(FREE, voice="nobody"), VoiceNotFoundError),
        (replace(FREE, settings={"key": 99.0}), SettingsError),
        (replace(FREE, settings={"keys": 1}), SettingsError),
    ):
        with pytest.raises(kind):
            list(stream(server.url, start, cut(tone(0.1))))


async def locally(blocks: list[np.ndarray], multiple: int = 960, live: bool = False) -> tuple[list[Audio], list[Event]]:
    events: list[Event] = []
    inner = LiveStream(tiny_converter("anna"), ConvertSettings(), rate=24_000, multiple=multiple)
    client = LocalClient(inner, "anna", live=live, on_event=events.append)
    await client.open()
    answers: list[Audio] = []

    async def drink() -> None:
        while (audio := await client.receive()) is not None:
            answers.append(audio)

    drinking = asyncio.create_task(drink())
    for number, block in enumerate(blocks):
        if number == 3:
            await client.change({"key": 3.0})
        await client.send(block)
    await client.end()
    await drinking
    await client.close()
    return answers, events


@settings(max_examples=6, deadline=None)
@given(st.integers(1, 8000))
def test_here_it_is_the_same_and_as_long_as_the_source(samples: int) -> None:
    take = tone(1)[:samples]
    blocks = [take[start : start + 960] for start in range(0, samples, 960)]
    answers, events = asyncio.run(locally(blocks))
    direct = LiveStream(tiny_converter("anna"), ConvertSettings(), rate=24_000, multiple=960)
    wanted = []
    for number, block in enumerate(cut_to(np.pad(take, (0, 24_000)), 960)):
        if number == 3 and len(blocks) > 3:
            direct.change(ConvertSettings(key=3.0))
        wanted.append(direct.feed(block))
    result = whole(answers)
    assert len(result) == samples + direct.delay
    assert np.abs(result - np.concatenate(wanted)[: len(result)]).max() < 1e-5
    assert isinstance(events[-1], Ended) and events[-1].samples == samples


def cut_to(take: np.ndarray, length: int) -> list[np.ndarray]:
    return [take[start : start + length] for start in range(0, len(take) // length * length, length)]


def test_here_an_uneven_block_must_be_the_last() -> None:
    with pytest.raises(SettingsError, match="multiples of 960"):
        asyncio.run(locally([np.zeros(100, np.float32), np.zeros(960, np.float32)]))


def test_here_what_waits_too_long_comes_back_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rocktop_ray.live.local._SKIP", 0.0)
    blocks = cut_to(tone(0.5), 960)
    answers, _ = asyncio.run(locally(blocks, live=True))
    late = [audio for audio in answers if Flags.LATE in audio.flags]
    assert len(late) == len(blocks)
    delay = len(whole(answers)) - 960 * len(blocks)
    assert np.abs(whole(answers)[delay + 100 : delay + 1920] - tone(0.5)[100:1920]).max() < 1e-3
