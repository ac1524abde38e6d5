"""A live session: any blocks in, the same blocks' lengths out, equally late; settings, bypass and moves in between."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import signal
from stand_ins import LevelEncoder
from tiny_voices import tiny_config, tiny_state

from rocktop_ray.audio.resample import resample
from rocktop_ray.convert import Converter
from rocktop_ray.errors import AudioError, SettingsError, StreamStateError
from rocktop_ray.live.converter import LiveConverter, LiveLayout
from rocktop_ray.live.resample import StreamResampler
from rocktop_ray.live.session import LiveSession
from rocktop_ray.models.rvc.voice import RvcVoice
from rocktop_ray.models.singer import SingerConfig, SingerNet, SingerVoice
from rocktop_ray.models.singer.about import SingerAbout
from rocktop_ray.protocols import Array
from rocktop_ray.settings import ConvertSettings

LAYOUT = LiveLayout(hop=4, ahead=6, left=40, acoustic_left=30)


class Loudest:
    """Pitch that depends on its own frame only."""

    name = "loudest"

    def f0(self, audio: Array) -> Array:
        padded = np.pad(np.abs(audio), (0, 160 - len(audio) % 160)).reshape(-1, 160)
        return np.where(padded.max(1) > 0.05, 200 + 100 * padded.max(1), 0).astype(np.float32)


@cache
def converter(kind: str) -> LiveConverter:
    if kind == "singer":
        net = SingerNet(SingerConfig(content_dim=1, width=16, dilations=(1, 2)))
        voice: RvcVoice | SingerVoice = SingerVoice(net, SingerAbout(48_000, "level", ("a",)))
    else:
        config = tiny_config(
            content_dim=1,
            sample_rate=40_000,
            upsample_rates=(10, 10, 4),
            upsample_kernel_sizes=(20, 20, 8),
            uses_f0=kind == "rvc",
        )
        voice = RvcVoice(config, tiny_state(config), content_name="level")
    return LiveConverter(Converter(LevelEncoder(), Loudest(), voice), LAYOUT)


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
    whole = LiveSession(converter(kind))
    expected = np.concatenate([whole.feed(audio), whole.flush()])
    session, parts, at = LiveSession(converter(kind)), [], 0
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
    here = LiveSession(converter(kind), ConvertSettings(key=2, rms_mix=0.5))
    sizes = set()
    for at in range(0, 30_000, 1_700):
        here.feed(audio[at : at + 1_700])
        sizes.add(len(here.state()))
    there = LiveSession(converter(kind))
    there.restore(here.state())
    assert there.settings == here.settings
    assert there.samples == here.samples
    assert max(sizes) - min(sizes) < 200  # numbers have more or fewer digits; nothing else grows
    for at in range(30_600, len(audio), 1_111):
        assert np.array_equal(here.feed(audio[at : at + 1_111]), there.feed(audio[at : at + 1_111]))
    assert np.array_equal(here.flush(), there.flush())


def test_a_state_of_another_layout_or_with_bad_settings_is_refused() -> None:
    session = LiveSession(converter("rvc"))
    before = session.state()
    other = LiveSession(LiveConverter(converter("rvc").parts, replace(LAYOUT, ahead=8)))
    bad = before.replace(b'\\"key\\": 0.0', b'\\"key\\": 9e9')
    assert bad != before
    for state in (other.state(), LiveSession(converter("singer")).state(), bad, before[:-1], b""):
        with pytest.raises(StreamStateError):
            session.restore(state)
    assert session.state() == before


@pytest.mark.parametrize("kind", ["rvc", "singer"])
def test_bypass_is_the_take_exactly_delayed(kind: str) -> None:
    audio = take(1.0)
    session = LiveSession(converter(kind), multiple=1920)
    assert session.delay == converter(kind).delay
    session.bypass = True
    session.feed(np.zeros(1920, np.float32))  # fades over
    out = np.concatenate([session.feed(audio), session.flush()])
    assert np.array_equal(out[session.delay :], audio)


def test_the_converted_is_in_time_with_the_bypassed() -> None:
    """The delay that is told is that of the sound: loudness rises where the take's does."""
    audio = np.zeros(48_000, np.float32)
    audio[20_000:40_000] = take(1)[:20_000]
    session = LiveSession(converter("singer"), ConvertSettings(rms_mix=1))
    out = np.concatenate([session.feed(audio), session.flush()])[session.delay :]
    assert len(out) == len(audio)


def test_going_over_to_bypass_and_back_does_not_click() -> None:
    """Steps between samples stay what the take and the converted have by themselves."""
    audio = (0.4 * np.sin(2 * np.pi * 100 * np.arange(96_000) / 48_000)).astype(np.float32)
    session = LiveSession(converter("rvc"))
    parts = []
    for number, at in enumerate(range(0, len(audio), 2_000)):
        session.bypass = number % 10 >= 5
        parts.append(session.feed(audio[at : at + 2_000]))
    out = np.concatenate(parts)
    plain = LiveSession(converter("rvc"))
    wave = plain.feed(audio)
    most = np.abs(np.diff(wave)).max() + np.abs(np.diff(audio)).max() + 1.5 / 960
    assert np.abs(np.diff(out)).max() <= most


def test_settings_change_between_blocks() -> None:
    audio = take(2)
    session = LiveSession(converter("rvc"))
    plain = LiveSession(converter("rvc"))
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
    session = LiveSession(converter("rvc"), multiple=480)
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
