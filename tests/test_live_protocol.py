"""The stream's protocol: what one side packs the other reads, and nothing that comes raises but ProtocolError."""

from __future__ import annotations

import json
import math
import struct
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rocktop_ray.errors import ProtocolError
from rocktop_ray.live import messages
from rocktop_ray.live.messages import (
    Applied,
    Audio,
    Bypass,
    Change,
    ChangeVoice,
    CloseCode,
    End,
    Ended,
    Flags,
    Notice,
    Ping,
    Pong,
    Problem,
    Resume,
    Spread,
    Start,
    Started,
    Stats,
    Unknown,
)
from rocktop_ray.live.protocol import close_reason, pack, pack_audio, parse_client, parse_server

few = settings(max_examples=60, deadline=None)
name = st.text(st.characters(exclude_categories=("Cs", "Cc")), min_size=1, max_size=256)
seq = st.integers(0, messages.MOST_SEQ)
count = st.integers(0, messages.MOST_POSITION)
number = st.floats(0, 1e15)
word = st.text(st.characters(exclude_categories=("Cs", "Cc")), max_size=64)
plain = st.dictionaries(
    st.text(min_size=1, max_size=64),
    word | st.booleans() | st.integers(-(2**63), 2**63) | st.floats(-1e9, 1e9),
    max_size=8,
)
anything: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner, max_size=4),
    max_leaves=10,
)
rate = st.integers(messages.LEAST_RATE, messages.MOST_RATE)
of_client = st.one_of(
    rate.flatmap(
        lambda hz: st.builds(
            Start,
            name,
            st.just(hz),
            st.sampled_from(messages.FORMATS),
            st.integers(1, hz),
            st.sampled_from(messages.PACES),
            plain,
            st.booleans(),
            st.none() | name,
        )
    ),
    st.builds(Resume, name, name, st.integers(-1, messages.MOST_SEQ), st.none() | name),
    st.builds(Change, plain),
    st.builds(ChangeVoice, name),
    st.builds(Bypass, st.booleans()),
    st.builds(Ping, st.none() | word | st.integers() | number),
    st.just(End()),
)
spread = st.builds(Spread, number, number, number)
of_server = st.one_of(
    st.builds(
        Started, name, name, name, rate, st.integers(0, 10**6), number, st.floats(0, 60), seq, plain, st.booleans()
    ),
    st.builds(Applied, plain, name, st.booleans(), seq, st.integers(0, 10**6)),
    st.builds(Pong, st.none() | word),
    st.builds(
        Stats,
        *(number, st.integers(-1, 100), st.integers(-1, 100), spread, number, st.floats(-1e6, 1e6)),
        *(count, count, count, st.floats(0, 9), count),
    ),
    st.builds(Notice, st.sampled_from(["draining", "new"]), st.just("one line"), st.none() | number),
    st.builds(Problem, word.filter(bool), name, st.just("why"), st.integers(100, 599), retry_after=st.none() | number),
    st.builds(Ended, count, count, count),
)


@few
@given(of_client)
def test_what_a_client_packs_is_read(message: Any) -> None:
    assert parse_client(pack(message)) == message


@few
@given(of_server)
def test_what_a_server_packs_is_read(message: Any) -> None:
    assert parse_server(pack(message)) == message


@few
@given(seq, count, st.integers(0, 15), st.integers(1, 400), st.integers(0, 2**31))
def test_audio_is_read_to_the_bit(number: int, position: int, flags: int, length: int, seed: int) -> None:
    samples = np.random.default_rng(seed).uniform(-2, 2, length).astype(np.float32)
    audio = Audio(number, position, samples, Flags(flags))
    assert parse_server(pack_audio(audio)) == audio
    whole = Audio(number, position, np.float32(np.rint(np.clip(samples, -1, 0.999) * 32768) / 32768), Flags(flags))
    assert parse_server(pack_audio(whole, "s16"), "s16") == whole
    if flags:
        with pytest.raises(ProtocolError, match="flags"):
            parse_client(pack_audio(audio))
    else:
        assert parse_client(pack_audio(audio)) == audio


def test_the_layout_of_a_block() -> None:
    data = pack_audio(Audio(7, 2**40, np.array([1.0, -0.5], np.float32), Flags.LATE | Flags.LAST))
    assert data == struct.pack("<BBHIQff", 1, 10, 0, 7, 2**40, 1.0, -0.5)
    clipped = pack_audio(Audio(0, 0, np.array([2.0, -2.0, 0.5], np.float32)), "s16")
    assert clipped[16:] == struct.pack("<hhh", 32767, -32768, 16384)


@pytest.mark.parametrize("format", messages.FORMATS)
@settings(max_examples=150, deadline=None)
@given(st.binary(max_size=80) | st.binary(max_size=64).map(lambda rest: b"\1\0\0\0" + rest))
def test_bytes_raise_nothing_else(format: messages.Format, data: bytes) -> None:
    for parse in (parse_client, parse_server):
        try:
            message = parse(data, format, 8000)
        except ProtocolError:
            continue
        assert isinstance(message, Audio) and len(message.samples) and np.isfinite(message.samples).all()


@settings(max_examples=150, deadline=None)
@given(st.text(max_size=100))
def test_texts_raise_nothing_else(text: str) -> None:
    for parse in (parse_client, parse_server):
        with pytest.raises(ProtocolError):
            parse(text)


@settings(max_examples=300, deadline=None)
@given(st.one_of(of_client, of_server), st.data())
def test_messages_with_something_wrong_raise_nothing_else(message: Any, data: st.DataObject) -> None:
    values = json.loads(pack(message))
    for _ in range(data.draw(st.integers(1, 2))):
        member = data.draw(st.sampled_from(sorted(values)) | st.text(max_size=10))
        if data.draw(st.booleans()) or member not in values:
            values[member] = data.draw(anything)
        else:
            del values[member]
        if not values:
            break
    text = json.dumps(values)
    for parse in (parse_client, parse_server):
        try:
            read = parse(text)
        except ProtocolError as error:
            assert error.http_status == 400 and error.message.isprintable() and len(error.message) < 600
        else:
            pack(read) if not isinstance(read, Unknown | Audio) else None


def start(**other: Any) -> str:
    return json.dumps({"type": "start", "version": 1, "voice": "bundle", "rate": 48_000, **other})


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[" * 100_000, "bytes"),
        ("[" * 10_000, "not JSON"),
        ('{"type":"ping","at":' + "[" * 20 + "]" * 20 + "}", "deeper"),
        ('{"type":"ping","at":' + "9" * 5000 + "}", "not JSON"),
        ('{"type":"ping","at":1e999}', "too large a number"),
        ('{"type":"ping","at":NaN}', "no number"),
        ('{"type":"ping","at":-Infinity}', "no number"),
        ('{"type":"end","type":"ping"}', "twice"),
        ('{"type":"en', "not JSON"),
        ('"end"', "object"),
        ("{}", "missing"),
        ('{"type":3}', "string"),
        ('{"type":"stop"}', "known: start, resume"),
        ('{"type":"end","why":1}', "unknown members 'why'"),
        ('{"type":"bypass","on":1}', "true or false"),
        ('{"type":"settings"}', "missing"),
        ('{"type":"settings","settings":{"key":[2]}}', "short strings"),
        ('{"type":"settings","settings":{"key":' + "9" * 80 + "}}", "short strings"),
        ('{"type":"voice","voice":"\\ud800"}', "plain text"),
        ('{"type":"voice","voice":"a\\u0000b"}', "plain text"),
        ('{"type":"voice","voice":""}', "1 to 256"),
        (start(version=2), "version 1"),
        (start(version=True), "whole number"),
        (start(rate=7999), "8000 to 192000"),
        (start(rate="48000"), "whole number"),
        (start(rate=48000.5), "whole number"),
        (start(rate=1e300), "whole number"),
        (start(format="mp3"), "f32, s16"),
        (start(pace="fast"), "live, free"),
        (start(block=0), "1 to 48000"),
        (start(block=48_001), "1 to 48000"),
        (start(settings=[]), "object"),
        (start(bypass="no"), "true or false"),
        ('{"type":"resume","version":1,"session":"a"}', "secret"),
        ('{"type":"resume","version":1,"session":"a","secret":"b","received":-2}', "-1 to"),
    ],
)
def test_refusals_say_what_is_wrong(text: str, says: str) -> None:
    with pytest.raises(ProtocolError, match=says) as refused:
        parse_client(text)
    assert len(refused.value.message) < 400


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "at least one sample"),
        (b"\1" + bytes(15), "at least one sample"),
        (b"\2" + bytes(19), "begins with 1"),
        (b"\1\0\1\0" + bytes(16), "begins with 1"),
        (b"\1\0\0\0" + bytes(15), "no whole number"),
        (b"\1\0\0\0" + bytes(12 + 4 * 8001), "at most 8000 samples, 1 s; this one has 8001"),
        (b"\1\0\0\0" + b"\xff" * 12 + bytes(4), "positions"),
        (b"\1\x10\0\0" + bytes(16), "flags"),
        (b"\1\0\0\0" + bytes(12) + struct.pack("<ff", 0, math.nan), "not numbers"),
        (b"\1\0\0\0" + bytes(12) + struct.pack("<ff", math.inf, 0), "not numbers"),
    ],
)
def test_blocks_that_are_refused(data: bytes, says: str) -> None:
    with pytest.raises(ProtocolError, match=says):
        parse_client(data, "f32", 8000)


def test_a_start_may_be_short_and_nulls_count_as_left_out() -> None:
    assert parse_client(start()) == Start("bundle", 48_000, "f32", 1920, "live", {}, False, None)
    settings = {"key": 2, "protect": None}
    assert parse_client(start(settings=settings, key=None, block=480.0)) == Start(
        "bundle", 48_000, "f32", 480, "live", {"key": 2}
    )


def test_a_client_passes_over_what_is_new() -> None:
    assert parse_server('{"type":"weather","wind":[1]}') == Unknown("weather")
    assert parse_server('{"type":"pong","at":1,"mood":"good"}') == Pong(1)
    assert parse_server(b"\1\xf2\0\0" + bytes(16)).flags == Flags.LATE  # type: ignore[union-attr]


def test_keys_and_secrets_stay_out_of_logs() -> None:
    assert "hush" not in repr(Start("bundle", 48_000, key="hush")) + repr(Resume("a", "hush", key="hush"))


def test_close_codes_follow_the_status() -> None:
    assert CloseCode.of_status(422) is CloseCode.SETTINGS and CloseCode.of_status(429) is CloseCode.NO_CAPACITY
    assert CloseCode.of_status(507) is CloseCode.FAULT and CloseCode.of_status(499) is CloseCode.FAULT
    assert close_reason("two\nlines \0") == "two lines"
    assert close_reason("é" * 100).encode() == "é".encode() * 60
