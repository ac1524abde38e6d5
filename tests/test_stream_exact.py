"""Streams without windows, and streams in time: what is heard once, in whichever hops, is what the whole would be."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch
from scipy import signal
from stand_ins import LevelEncoder

from rocktop_ray.errors import ModelMissingError
from rocktop_ray.features.index import RetrievalIndex
from rocktop_ray.live.converter import LiveConverter, LiveLayout
from rocktop_ray.live.entrance import Entrance
from rocktop_ray.live.parts import LiveParts
from rocktop_ray.live.stream import LiveStream, feed_many
from rocktop_ray.models.listener import ListenerConfig, ListenerNet, ListenerState, ListenerStream
from rocktop_ray.models.singer import SingerConfig, SingerNet, SingerVoice
from rocktop_ray.models.singer.about import SingerAbout
from rocktop_ray.models.singer.live_net import LiveConfig, LiveFrameNet, LiveNet, LiveState
from rocktop_ray.protocols import Array
from rocktop_ray.settings import ConvertSettings

SETTINGS = [
    ConvertSettings(index_rate=0.5),
    ConvertSettings(key=5, median_radius=3, autotune=0.8, scale="major", rms_mix=1),
    ConvertSettings(index_rate=1, protect=0.1, unvoiced="interpolate", seed=3),
]


@cache
def parts() -> LiveParts:
    torch.manual_seed(0)
    listener = ListenerNet(ListenerConfig(units=6, width=16, pitch_width=12, dilations=(1, 2), pitch_dilations=(1,)))
    net = LiveFrameNet(LiveConfig(content_dim=6, width=16, dilations=(1, 2, 4), delays=(1, 1)))
    with torch.no_grad():
        net.head.bias[:64] = -30  # noise only: the phase of pulses adds up what F0 is rounded by
    voice = SingerVoice(
        SingerNet(SingerConfig(content_dim=6, width=16, dilations=(1,))),
        SingerAbout(sample_rate=48_000, encoder="x", speakers=("a",)),
    )
    index = RetrievalIndex.build(np.random.default_rng(0).normal(size=(100, 6)).astype(np.float32))
    return LiveParts(voice, index, listener=ListenerStream(listener), live_net=LiveNet(net))


@cache
def converter(hop: int) -> LiveConverter:
    return LiveConverter(parts(), LiveLayout(hop=hop, ahead=0), name="tiny")


def take(seconds: float) -> Array:
    at = np.arange(round(seconds * 48_000)) / 48_000
    noise = np.random.default_rng(1).normal(0, 0.02, len(at))
    melody = 220 * 2 ** (np.sin(2 * np.pi * 0.8 * at) / 4)
    voice = signal.sawtooth(2 * np.pi * np.cumsum(melody) / 48_000) * (np.sin(2 * np.pi * 1.7 * at) > -0.3)
    return (0.3 * voice + noise).astype(np.float32)


def streamed(hop: int, settings: ConvertSettings, audio: Array) -> Array:
    """From the take's first sample on."""
    stream = LiveStream(converter(hop), settings, multiple=hop * 480)
    assert stream.delay == converter(hop).delay
    return np.concatenate([stream.feed(audio), stream.flush()])[stream.delay :]


@pytest.mark.parametrize("settings", SETTINGS)
def test_the_size_of_the_hop_changes_nothing(settings: ConvertSettings) -> None:
    """A hop of 1 s is the whole of this take: 1e-4 at most."""
    audio = take(2)
    if settings.median_radius:  # it looks as far ahead as the hop goes
        settings = replace(settings, median_radius=0)
    whole = streamed(100, settings, audio)
    assert np.abs(whole).max() > 0.01
    for hop in (4, 10):
        assert np.abs(streamed(hop, settings, audio) - whole).max() <= 1e-4 * np.abs(whole).max()


def test_what_is_exact_is_told_and_the_delay_is_added_up() -> None:
    live = converter(4)
    assert live.exact
    assert live.parts_exact == {"content": True, "pitch": True, "acoustic": True, "vocoder": True}
    lags = parts().listener.lag + parts().live_net.lag + 2  # type: ignore[union-attr]  # the vocoder's 20 ms
    assert live.delay == 144 + lags * 480
    assert live.facts()["delay_ms"] == pytest.approx(live.delay / 48)
    windows = LiveConverter(LiveParts(parts().voice, encoder=LevelEncoder(), extractor=_Steady()), LiveLayout())
    assert not windows.exact
    assert windows.parts_exact == {"content": False, "pitch": False, "acoustic": False, "vocoder": True}
    with pytest.raises(ModelMissingError):
        LiveConverter(LiveParts(parts().voice))


def test_several_streams_at_once_are_as_one_by_one() -> None:
    audio = take(1.5)
    blocks = [audio[at:] for at in (0, 5_000, 9_000)]

    def streams() -> list[LiveStream]:
        made = [
            LiveStream(converter(4), each, rate=rate)
            for each, rate in zip(SETTINGS, (48_000, 44_100, 16_000), strict=True)
        ]
        made[2].feed(audio[:7_000])
        made[1].bypass = True
        return made

    together, alone = streams(), streams()
    for turn, size in enumerate((10_000, 1_920, 300, 7_000)):
        for stream in (together[1], alone[1]):
            stream.bypass = turn < 2
        pieces = [block[:size] for block in blocks]
        for one, piece, wave in zip(alone, pieces, feed_many(together, pieces), strict=True):
            assert np.abs(one.feed(piece) - wave).max() <= 1e-5


def test_a_stream_goes_on_elsewhere_to_the_bit_and_stays_as_large() -> None:
    audio = take(2)
    here = LiveStream(converter(4), SETTINGS[1], rate=44_100)
    there = LiveStream(converter(4), rate=44_100)
    sizes = set()
    for at in range(0, len(audio), 5_003):
        there.restore(here.state())
        assert np.array_equal(here.feed(audio[at : at + 5_003]), there.feed(audio[at : at + 5_003]))
        sizes.add(len(here.state()))
    assert max(sizes) - min(sizes) < 300


def test_formants_move_and_the_melody_stays() -> None:
    """What the listener is given: spectra go up, and hop by hop is as the whole but for the hops' edges."""
    audio = take(1)
    live, entrance = converter(4), Entrance(0)
    heard = {}
    for semitones in (0.0, 6.0):
        state, low = entrance.begin(), []
        for at in range(0, len(audio), live.hop):
            hop, settings = audio[at : at + live.hop], ConvertSettings(formant=semitones)
            (state,), (wave,) = entrance.step([state], [hop], [settings])
            low.append(wave)
        heard[semitones] = np.concatenate(low)
    centres = []
    for wave in heard.values():
        spectrum = np.abs(np.fft.rfft(wave * np.hanning(len(wave)))) ** 2
        centres.append((spectrum * np.arange(len(spectrum))).sum() / spectrum.sum())
    assert centres[1] > 1.1 * centres[0]


class _Steady:
    name = "steady"

    def f0(self, audio: Array) -> Array:
        return np.full(len(audio) // 160 + 1, 200, np.float32)


class _Loud:
    """Hears one number per frame: how loud the 20 ms around it are."""

    lag = 1

    def begin(self) -> ListenerState:
        return ListenerState((torch.zeros(320),))

    def step(
        self, states: list[ListenerState], audio: torch.Tensor
    ) -> tuple[list[ListenerState], torch.Tensor, torch.Tensor]:
        heard = torch.cat([torch.stack([state.held[0] for state in states]), audio], 1)
        loud = heard.unfold(1, 320, 160)[:, : audio.shape[1] // 160].square().mean(-1).sqrt()
        return [ListenerState((rows,)) for rows in heard[:, -320:]], loud[..., None], torch.zeros_like(loud)


class _Noise:
    """Sings noise as loud as the units say."""

    lag = 0

    def begin(self) -> LiveState:
        return LiveState(())

    def step(
        self, states: list[LiveState], units: torch.Tensor, f0: torch.Tensor, voiced: torch.Tensor, speaker: list[int]
    ) -> tuple[list[LiveState], torch.Tensor]:
        latent = torch.full((len(units), 124, units.shape[1]), -16.0)
        latent[:, 64:] = units[..., 0].clamp_min(1e-5).log()[:, None]
        return states, latent


@pytest.mark.parametrize("rate", [48_000, 44_100])
def test_the_converted_comes_at_exactly_the_delay(rate: int) -> None:
    """Its loudness rises and falls with that of the take: most alike within 0.5 ms of the delay."""
    voice = SingerVoice(
        SingerNet(SingerConfig(content_dim=1, width=16, dilations=(1,))),
        SingerAbout(sample_rate=48_000, encoder="x", speakers=("a",)),
    )
    live = LiveConverter(LiveParts(voice, listener=_Loud(), live_net=_Noise()), LiveLayout(hop=4, ahead=0))  # type: ignore[arg-type]
    at = np.arange(6 * rate) / rate
    knots = np.random.default_rng(0).normal(0, 1, 120)
    swell = 0.1 * np.exp(np.interp(at * 15, np.arange(120), knots))
    stream = LiveStream(live, ConvertSettings(rms_mix=1), rate=rate)
    audio = (swell * np.sin(2 * np.pi * 1_000 * at)).astype(np.float32)
    out = np.concatenate([stream.feed(audio), stream.flush()])[stream.delay :]
    loud = np.sqrt(np.maximum(signal.fftconvolve(out.astype(float) ** 2, np.hanning(rate // 50), "same"), 0))
    middle = slice(rate // 2, 5 * rate)
    wanted = swell[middle] - swell[middle].mean()
    lags = range(-rate // 50, rate // 50, 8)
    alike = [np.corrcoef(loud[middle.start + lag : middle.stop + lag], wanted)[0, 1] for lag in lags]
    assert max(alike) > 0.95
    assert abs(lags[int(np.argmax(alike))]) <= rate // 2_000
