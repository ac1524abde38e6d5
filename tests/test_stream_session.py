"""A live session: any blocks in, the same blocks' lengths out, equally late; settings, bypass and moves in between."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import signal
from stand_ins import LevelEncoder, LoudPitch
from tiny_voices import tiny_config, tiny_state

from rocktop_ray.audio.resample import resample
from rocktop_ray.convert import Converter
from rocktop_ray.errors import AudioError, SettingsError, StreamStateError
from rocktop_ray.live.converter import LiveConverter, LiveLayout
from rocktop_ray.live.resample import StreamResampler
from rocktop_ray.live.stream import LiveStream, feed_many, voices_in
from rocktop_ray.models.rvc.voice import RvcVoice
from rocktop_ray.models.singer import SingerConfig, SingerNet, SingerVoice
from rocktop_ray.models.singer.about import SingerAbout
from rocktop_ray.protocols import Array
from rocktop_ray.settings import ConvertSettings

LAYOUT = LiveLayout(hop=4, ahead=6, left=40, acoustic_left=30)


@cache
def converter(kind: str, speakers: int = 3) -> LiveConverter:
    if kind == "singer":
        net = SingerNet(SingerConfig(content_dim=1, width=16, dilations=(1, 2)))
        voice: RvcVoice | SingerVoice = SingerVoice(
            net, SingerAbout(sample_rate=48_000, encoder="level", speakers=("a",))
        )
    else:
        config = tiny_config(
            content_dim=1,
            sample_rate=40_000,
            upsample_rates=(10, 10, 4),
            upsample_kernel_sizes=(20, 20, 8),
            uses_f0=kind == "rvc",
        )
        config = replace(config, speakers=speakers)
        voice = RvcVoice(config, tiny_state(config), content_name="level")
    return LiveConverter(Converter(LevelEncoder(), LoudPitch(), voice), LAYOUT)


def take(seconds: float, seed: int = 0) -> Array:
    at = np.arange(round(seconds * 48_000)) / 48_000
    noise = np.random.default_rng(seed).normal(0, 0.02, len(at))
    return (0.4 * np.sin(2 * np.pi * 220 * at) * (np.sin(2 * np.pi * 1.7 * at) > -0.3) + noise).astype(np.float32)


@pytest.mark.parametrize("kind", ["rvc", "no F0", "singer"])
@settings(max_examples=4, deadline=None)
@given(data=st.data())
def test_blocks_of_any_size_give_the_same_stream(kind: str, data: st.DataObject) -> None:
    """From 10 ms to 1 s, irregular: 1e-4 at most, block for block of the same length."""
    audio = take(1.5)
    whole = LiveStream(converter(kind))
    expected = np.concatenate([whole.feed(audio), whole.flush()])
    session, parts, at = LiveStream(converter(kind)), [], 0
    while at < len(audio):
        size = data.draw(st.one_of(st.integers(480, 48_000), st.sampled_from([480, 960, 1920, 441 * 5])))
        block = audio[at : at + size]
        parts.append(session.feed(block))
        assert len(parts[-1]) == len(block)
        at += size
    joined = np.concatenate([*parts, session.flush()])
    assert len(joined) == len(audio) + session.delay
    assert np.abs(joined - expected).max() <= 1e-4
    assert np.abs(expected).max() > 0


@pytest.mark.parametrize("kind", ["rvc", "no F0", "singer"])
def test_a_session_goes_on_elsewhere_to_the_bit(kind: str) -> None:
    audio = take(1.2)
    here = LiveStream(converter(kind), ConvertSettings(key=2, rms_mix=0.5))
    sizes = set()
    for at in range(0, 30_000, 1_700):
        here.feed(audio[at : at + 1_700])
        sizes.add(len(here.state()))
    there = LiveStream(converter(kind))
    there.restore(here.state())
    assert there.settings == here.settings
    assert there.samples == here.samples
    assert max(sizes) - min(sizes) < 200  # numbers have more or fewer digits; nothing else grows
    for at in range(30_600, len(audio), 1_111):
        assert np.array_equal(here.feed(audio[at : at + 1_111]), there.feed(audio[at : at + 1_111]))
    assert np.array_equal(here.flush(), there.flush())


def test_a_state_of_another_layout_or_with_bad_settings_is_refused() -> None:
    session = LiveStream(converter("rvc"))
    before = session.state()
    other = LiveStream(LiveConverter(converter("rvc").parts, replace(LAYOUT, ahead=8)))
    bad = before.replace(b'"key":0.0', b'"key":9e9')
    assert bad != before
    for state in (other.state(), LiveStream(converter("singer")).state(), bad, before[:-1], b""):
        with pytest.raises(StreamStateError):
            session.restore(state)
    assert session.state() == before


@pytest.mark.parametrize("kind", ["rvc", "singer"])
def test_bypass_is_the_take_exactly_delayed(kind: str) -> None:
    audio = take(1.0)
    session = LiveStream(converter(kind), multiple=1920)
    assert session.delay == converter(kind).delay
    session.bypass = True
    session.feed(np.zeros(1920, np.float32))  # fades over
    out = np.concatenate([session.feed(audio), session.flush()])
    assert np.array_equal(out[session.delay :], audio)


def test_the_converted_is_in_time_with_the_bypassed() -> None:
    """The delay that is told is that of the sound: loudness rises where the take's does."""
    audio = np.zeros(48_000, np.float32)
    audio[20_000:40_000] = take(1)[:20_000]
    session = LiveStream(converter("singer"), ConvertSettings(rms_mix=1))
    out = np.concatenate([session.feed(audio), session.flush()])[session.delay :]
    assert len(out) == len(audio)


def test_going_over_to_bypass_and_back_does_not_click() -> None:
    """Steps between samples stay what the take and the converted have by themselves."""
    audio = (0.4 * np.sin(2 * np.pi * 100 * np.arange(96_000) / 48_000)).astype(np.float32)
    session = LiveStream(converter("rvc"))
    parts = []
    for number, at in enumerate(range(0, len(audio), 2_000)):
        session.bypass = number % 10 >= 5
        parts.append(session.feed(audio[at : at + 2_000]))
    out = np.concatenate(parts)
    plain = LiveStream(converter("rvc"))
    wave = plain.feed(audio)
    most = np.abs(np.diff(wave)).max() + np.abs(np.diff(audio)).max() + 1.5 / 960
    assert np.abs(np.diff(out)).max() <= most


def test_settings_change_between_blocks() -> None:
    audio = take(2)
    session = LiveStream(converter("rvc"))
    plain = LiveStream(converter("rvc"))
    first = session.feed(audio[:48_000])
    assert np.array_equal(first, plain.feed(audio[:48_000]))
    session.change(ConvertSettings(key=7))
    assert not np.array_equal(session.feed(audio[48_000:]), plain.feed(audio[48_000:]))
    with pytest.raises(SettingsError, match="speakers"):
        session.change(ConvertSettings(speaker=3))
    with pytest.raises(SettingsError, match="give a key"):
        session.change(ConvertSettings(auto_key=True))
    assert session.settings.key == 7


def test_bad_blocks_are_refused_and_the_stream_goes_on() -> None:
    session = LiveStream(converter("rvc"), multiple=480)
    before = session.state()
    for block in (np.full(480, np.nan), np.zeros((480, 2)), np.zeros(481), np.zeros(48_000 * 11)):
        with pytest.raises(AudioError):
            session.feed(block.astype(np.float32))
    assert session.state() == before


@pytest.mark.parametrize("change", [{"hop": 3}, {"ahead": 102}, {"left": 10}, {"acoustic_left": 2000}, {"hop": 0}])
def test_layouts_out_of_range_are_refused(change: dict[str, int]) -> None:
    with pytest.raises(SettingsError):
        LiveLayout(**change)


@pytest.mark.parametrize(
    ("from_rate", "to_rate"), [(48_000, 16_000), (32_000, 48_000), (40_000, 48_000), (48_000, 48_000)]
)
def test_stream_resampler(from_rate: int, to_rate: int) -> None:
    """Blocks equal the whole; the whole equals soxr's to 1e-3 of full scale for what both let through."""
    random = np.random.default_rng(0)
    band = signal.butter(12, 0.6 * min(from_rate, to_rate) / 2, fs=from_rate, output="sos")
    audio = signal.sosfilt(band, random.normal(0, 0.1, from_rate)).astype(np.float32)
    stream = StreamResampler(from_rate, to_rate)
    _, whole = stream.step(stream.begin(), audio)
    state, parts, at = stream.begin(), [], 0
    while at < len(audio):
        size = int(random.integers(1, 900)) * stream.multiple
        state, part = stream.step(state, audio[at : at + size])
        parts.append(part)
        at += size
    assert np.abs(np.concatenate(parts) - whole).max() <= 1e-6
    late = round(stream.delay * to_rate / from_rate)
    if late * from_rate == stream.delay * to_rate:
        theirs = resample(audio, from_rate, to_rate)
        n = len(whole) - late
        assert np.abs(whole[late:] - theirs[:n])[1000:-1000].max() <= 1e-3


RATES = (8_000, 11_025, 22_050, 44_100, 47_999, 96_000, 192_000)


@pytest.mark.parametrize("rate", RATES)
@pytest.mark.parametrize("multiple", [1, 40, 128])
def test_bypass_at_a_client_s_rate_is_the_take_exactly_delayed(rate: int, multiple: int) -> None:
    """``multiple`` 40 stands for blocks of 40 ms, which wait for nothing where they fit the hop."""
    multiple = rate * 40 // 1000 if multiple == 40 else multiple
    at = np.arange(rate // 2) / rate
    audio = (0.3 * np.sin(2 * np.pi * 300 * at) * np.minimum(1, np.minimum(at, at[::-1]) * 10)).astype(np.float32)
    audio = np.pad(audio, (0, -len(audio) % multiple))
    stream = LiveStream(converter("singer"), rate=rate, multiple=multiple)
    waits = 0 if multiple * 1000 == rate * 40 else 1920
    sincs = 0 if rate == 48_000 else 48 * 2 / min(rate, 48_000)
    longest = (converter("singer").delay + waits) / 48_000 + sincs
    assert longest - 0.003 - (0.02 if multiple == 128 else 0) <= stream.delay / rate <= longest + 0.003
    stream.bypass = True
    stream.feed(np.zeros(-(-rate // 10 // multiple) * multiple, np.float32))
    random, parts, low = np.random.default_rng(rate), [], 0
    while low < len(audio):
        high = low + int(random.integers(1, max(2, 3000 // multiple))) * multiple
        parts.append(stream.feed(audio[low:high]))
        assert len(parts[-1]) == len(audio[low:high])
        low = high
    out = np.concatenate([*parts, stream.flush()])[stream.delay :]
    assert np.abs(out - audio).max() <= 1e-5


@settings(max_examples=6, deadline=None)
@given(data=st.data(), rate=st.sampled_from(RATES))
def test_blocks_of_any_size_give_the_same_stream_at_any_rate(data: st.DataObject, rate: int) -> None:
    """To the bit: what is resampled does not depend on the cuts."""
    audio = np.resize(take(0.7), rate)
    whole, cut = LiveStream(converter("singer"), rate=rate), LiveStream(converter("singer"), rate=rate)
    expected = np.concatenate([whole.feed(audio), whole.flush()])
    parts, low = [], 0
    while low < rate:
        size = data.draw(st.integers(1, rate // 3))
        parts.append(cut.feed(audio[low : low + size]))
        low += size
    joined = np.concatenate([*parts, cut.flush()])
    assert np.array_equal(joined, expected)
    assert np.abs(expected).max() > 0


def test_skipped_blocks_are_the_take_and_keep_the_clock() -> None:
    audio = take(2)
    stream = LiveStream(converter("singer"), multiple=1920)
    plain = LiveStream(converter("singer"), multiple=1920)
    parts = [stream.feed(audio[:28_800]), stream.skip(audio[28_800:48_000]), stream.feed(audio[48_000:])]
    expected = plain.feed(audio)
    out = np.concatenate(parts)
    late = np.concatenate([np.zeros(stream.delay, np.float32), audio])
    assert np.array_equal(out[:28_800], expected[:28_800])
    assert np.array_equal(out[28_800 + 240 : 48_000], late[28_800 + 240 : 48_000])
    assert np.abs(np.diff(out[28_700:29_100])).max() <= np.abs(np.diff(expected)).max() + np.abs(np.diff(audio)).max()
    assert not np.array_equal(out[-9600:], late[: len(out)][-9600:])  # the voice is back
    assert stream.samples == len(audio)


def test_another_voice_takes_over_while_the_stream_goes_on() -> None:
    audio = take(2.5)
    stream = LiveStream(converter("rvc"), rate=44_100)
    reference = LiveStream(converter("rvc"), rate=44_100)
    first = stream.feed(audio[:22_050])
    old = stream.delay
    new = stream.switch(converter("singer"), ConvertSettings(key=3))
    assert stream.changing
    assert stream.delay == old != new
    begins = stream._untils[0]
    moved = LiveStream(converter("rvc"), rate=44_100)
    parts = [first]
    for low in range(22_050, len(audio), 3_000):
        state = stream.state()
        assert len(voices_in(state)) == (2 if stream.changing else 1)
        if stream.changing:
            with pytest.raises(StreamStateError):
                moved.restore(state)
            moved.restore(state, converter("singer"))
        parts.append(stream.feed(audio[low : low + 3_000]))
        if moved.changing:
            assert np.array_equal(moved.feed(audio[low : low + 3_000]), parts[-1])
    out, expected = np.concatenate(parts), reference.feed(audio)
    same = np.flatnonzero(out != expected)[0]
    assert 22_050 + new < begins <= same < begins + 20  # before, the old voice is heard as if nothing happened
    assert not stream.changing
    assert stream.delay == new
    steps = np.abs(np.diff(out))
    assert steps[same - 10 : same + 1_000].max() <= np.abs(np.diff(expected)).max() + steps[same + 2_000 :].max() + 0.01
    stream.switch(converter("rvc"))
    stream.switch(converter("singer"))
    assert not stream.changing


@pytest.mark.parametrize(
    ("after", "voices"), [(1, ["rvc", "singer", "rvc"]), (881, ["rvc", "singer", "rvc"]), (882, ["singer", "rvc"])]
)
def test_a_change_while_another_voice_takes_over_does_not_click(after: int, voices: list[str]) -> None:
    """The first change goes on to its end: until the last voice begins, all is as if that had not been asked for."""
    audio = take(2.5)
    stream, other = (LiveStream(converter("rvc"), rate=44_100) for _ in range(2))
    for each in (stream, other):
        each.feed(audio[:22_050])
        each.switch(converter("singer"))
    at = stream._untils[0] + after
    expected = other.feed(audio[22_050:])
    parts = [stream.feed(audio[22_050:at])]
    stream.switch(converter("rvc"))
    state = stream.state()
    assert len(voices_in(state)) == len(voices)
    parts.append(stream.feed(audio[at:]))
    out = np.concatenate(parts)
    begins = np.flatnonzero(out != expected)[0]
    assert begins > at - 22_050 + 882
    steps = np.abs(np.diff(out))
    assert (
        steps[begins - 10 : begins + 1_000].max() <= steps[: begins - 10].max() + steps[begins + 2_000 :].max() + 0.01
    )
    assert not stream.changing
    first, *coming = map(converter, voices)
    moved = LiveStream(first, rate=44_100)
    with pytest.raises(StreamStateError):
        moved.restore(state, *coming[1:])
    moved.restore(state, *coming)
    assert np.array_equal(moved.feed(audio[at:]), parts[-1])


def test_a_voice_that_is_left_keeps_what_only_it_can_follow() -> None:
    """The other one has more speakers than it."""
    audio = take(2.0)
    stream, plain = (LiveStream(converter("rvc", 2), ConvertSettings(key=2, speaker=1)) for _ in range(2))
    parts = [stream.feed(audio[:24_000])]
    stream.switch(converter("rvc", 6), ConvertSettings(key=5, speaker=4))
    parts.append(stream.feed(audio[24_000:26_000]))
    stream.change(ConvertSettings(key=5, speaker=5))
    with pytest.raises(SettingsError, match="speakers 0 to 5, not 6"):
        stream.change(ConvertSettings(speaker=6))
    at, state = stream._untils[0], stream.state()
    parts.append(stream.feed(audio[26_000:]))
    assert np.array_equal(np.concatenate(parts)[:at], plain.feed(audio)[:at])
    assert not stream.changing and stream.settings.speaker == 5
    moved = LiveStream(converter("rvc", 2))
    moved.restore(state, converter("rvc", 6))
    assert np.array_equal(moved.feed(audio[26_000:]), parts[-1]) and moved.settings == stream.settings
    with pytest.raises(StreamStateError, match="settings that cannot be used"):
        LiveStream(converter("rvc", 2)).restore(state, converter("rvc", 5))


@pytest.mark.parametrize(("rate", "multiple"), [(7_999, 1), (192_001, 1), (48_000, 0)])
def test_rates_out_of_range_are_refused(rate: int, multiple: int) -> None:
    with pytest.raises(SettingsError):
        LiveStream(converter("rvc"), rate=rate, multiple=multiple)


def test_several_streams_at_once_are_as_one_by_one() -> None:
    """They differ in voice, rate, settings, bypass and age; within 1e-5."""
    audio = take(1.5)

    def streams() -> list[LiveStream]:
        made = [
            LiveStream(converter("rvc"), ConvertSettings(key=2)),
            LiveStream(converter("singer"), rate=44_100),
            LiveStream(converter("rvc"), ConvertSettings(index_rate=0, speaker=1), rate=22_050),
            LiveStream(converter("rvc")),
            LiveStream(converter("singer"), ConvertSettings(median_radius=3)),
        ]
        made[3].bypass = True
        made[2].feed(audio[:30_000])
        made[4].feed(audio[:17_000])
        made[1].switch(converter("rvc"))
        return made

    together, alone = streams(), streams()
    sizes = [480, 4_000, 2_222, 1_920, 10_000]
    for turn in range(5):
        blocks = [audio[turn * size :][:size] for size in sizes]
        skip = [turn == 2 and number == 0 for number in range(5)]
        for number, wave in enumerate(feed_many(together, blocks, skip)):
            single = alone[number].skip if skip[number] else alone[number].feed
            assert np.abs(single(blocks[number]) - wave).max() <= 1e-5
