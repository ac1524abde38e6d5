"""F0 of streams by the listener's pitch branch: each frame is heard once, and none is missed."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
import torch
from stand_ins import LevelEncoder

from rocktop_ray.errors import AudioError, SettingsError
from rocktop_ray.live.ears import WindowEars
from rocktop_ray.live.layout import LiveLayout
from rocktop_ray.live.melody import MelodyListener
from rocktop_ray.live.parts import live_pitch
from rocktop_ray.live.state import pack, unpack
from rocktop_ray.models.listener import ListenerStream, PitchStream
from rocktop_ray.settings import ConvertSettings
from rocktop_ray.voices.student_format import open_listener, open_pitch


@cache
def both() -> tuple[PitchStream, ListenerStream]:
    return open_pitch(), open_listener()


def sung(frames: int) -> np.ndarray:
    at = np.arange(frames * 160) / 16_000
    wave = 0.3 * np.sin(2 * np.pi * (220 + 30 * np.sin(2 * np.pi * 3 * at)).cumsum() / 16_000)
    return np.asarray(wave * (np.sin(2 * np.pi * at) > -0.5) + np.random.default_rng(0).normal(0, 0.003, len(at)), "f4")


def test_it_is_the_pitch_of_the_listener() -> None:
    pitch, listener = both()
    audio = torch.from_numpy(np.stack([sung(80), sung(83)[3 * 160 :]]))
    _, _, reference = listener.step([listener.begin()] * 2, audio)
    states, parts = [pitch.begin()] * 2, []
    for start in range(0, 80, 5):
        states, f0 = pitch.step(
            [unpack(pack(state), pitch.begin()) for state in states], audio[:, start * 160 :][:, :800]
        )
        parts.append(f0)
    assert (torch.cat(parts, 1) - reference).abs().max() <= 1e-2
    assert (reference > 0).sum() > 60
    assert pitch.lag == listener.lag


def test_other_shapes_are_refused() -> None:
    pitch, _ = both()
    with pytest.raises(AudioError, match=r"\[1, n \* 160\]"):
        pitch.step([pitch.begin()], torch.zeros(1, 100))


@pytest.mark.parametrize("ahead", [2, 8])
@pytest.mark.parametrize("hop", [4, 10])
def test_a_stream_hears_every_frame_once_and_holds_the_last_ones(hop: int, ahead: int) -> None:
    pitch, listener = both()
    source, audio = MelodyListener(pitch, ahead), sung(120)
    _, _, reference = listener.step([listener.begin()], torch.from_numpy(audio)[None])
    known = reference[0, pitch.lag :].numpy()  # frame by frame of the stream
    state = source.begin()
    padded = np.concatenate([np.zeros(ahead * 160, np.float32), audio])
    for start in range(0, 120 - hop + 1, hop):
        window = padded[start * 160 :][: (hop + ahead) * 160]
        (state,), (f0,) = source.step([state], window[None], hop)
        assert len(f0) == hop + ahead
        first = start - ahead
        sure = hop + ahead - pitch.lag
        expected = [known[frame] if frame >= 0 else 0.0 for frame in range(first, first + sure)]
        heard = f0[:sure] if first >= 0 else f0[-first:sure]
        assert np.abs(heard - expected[-len(heard) :]).max() <= 1e-2
        assert (f0[sure:] == f0[sure - 1]).all()


def test_several_streams_are_as_one_by_one() -> None:
    """Through ``WindowEars``, of different ages and keys."""
    ears = WindowEars(LevelEncoder(), both()[0], LiveLayout(hop=4, ahead=4, left=20))
    audio, states = sung(60), []
    for age in (0, 2, 5):
        state = ears.begin()
        for turn in range(age):
            window = audio[turn * 640 :][: ears.needs + 640]
            (state,), _, _ = ears.step([state], window[None], [ConvertSettings()])
        states.append(unpack(pack(state), ears.begin()))
    heard = np.stack([audio[at:][: ears.needs + 640] for at in (0, 800, 1600)])
    settings = [ConvertSettings(key=key) for key in (0, 3, -2)]
    _, _, together = ears.step(states, heard, settings)
    for place in range(3):
        _, _, (melody,) = ears.step([states[place]], heard[place : place + 1], [settings[place]])
        assert np.abs(melody.f0 - together[place].f0).max() <= 1e-2


def test_it_is_told_to_be_exact_where_the_units_are_not() -> None:
    layout = LiveLayout(hop=4, ahead=4, left=20)
    assert WindowEars(LevelEncoder(), both()[0], layout).parts_exact == {"content": False, "pitch": True}
    assert WindowEars(LevelEncoder(), None, layout).parts_exact == {"content": False, "pitch": False}


def test_it_needs_to_wait_for_its_lag() -> None:
    with pytest.raises(SettingsError, match="at least 2 frames ahead"):
        MelodyListener(both()[0], 0)


def test_it_is_what_streams_hear_where_nobody_chose() -> None:
    class Chosen:
        name = "chosen"

        def f0(self, audio: np.ndarray) -> np.ndarray:
            return np.zeros(len(audio) // 160 + 1, np.float32)

    assert isinstance(live_pitch(None, Chosen), PitchStream)
    assert live_pitch("listener", Chosen) is live_pitch(None, Chosen)
    assert isinstance(live_pitch("fcpe", Chosen), Chosen)
