"""The pipeline with plain stand-in stages: lengths, chunks, draws, limits. Real stages: test_convert_parity.py."""

from __future__ import annotations

import itertools
import threading
import tracemalloc
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from stand_ins import LevelEncoder, LevelPitch, LevelVoice, converter, tone

from rocktop_ray.chunks import FRAME, PAD, plan_chunks, quietest, split_sections
from rocktop_ray.conversion import blend_protected
from rocktop_ray.convert import Converter
from rocktop_ray.errors import AudioError, CancelledError, ModelMissingError, SettingsError, VoiceFormatError
from rocktop_ray.noise import GivenNoise, SeededNoise
from rocktop_ray.protocols import Array, ContentSpec
from rocktop_ray.settings import ConvertSettings

QUICK = settings(max_examples=15, deadline=None)


@QUICK
@given(samples=st.integers(2400, 200_000), rate=st.sampled_from([24000, 32000, 40000, 48000]))
def test_length_is_the_takes_to_the_sample(samples: int, rate: int) -> None:
    take = tone(samples / 48000)[:samples]
    result = converter(rate).convert(take)
    assert result.audio.shape == take.shape
    assert result.audio.dtype == np.float32
    assert len(result.f0) == -(-samples // 480) == len(result.f0_source)


@QUICK
@given(cuts=st.lists(st.integers(0, 144_000), max_size=6))
def test_blocks_of_any_size_give_the_same_bytes(cuts: list[int]) -> None:
    take = tone(3.0)
    whole = converter().convert(take).audio
    edges = [0, *sorted(cuts), len(take)]
    blocks = [take[a:b] for a, b in itertools.pairwise(edges)]
    joined = np.concatenate([part.audio for part in converter().stream(blocks)])
    assert joined.tobytes() == whole.tobytes()


def test_chunks_and_sections_draw_what_the_whole_draws() -> None:
    """White units at temperature 1: the wave is the noise table itself, whatever cut it."""
    take = np.zeros(48000 * 130, np.float32)
    take[::4800] = 1e-3
    made = converter().convert(take, ConvertSettings(temperature=1, rms_mix=1, seed=5)).audio[::480]
    table = SeededNoise(5).normal("prior", 0, 13_300, 1)[100:13_100, 0]
    assert np.abs(made - table).max() < 1e-3


def test_same_seed_same_bytes_other_seed_other_bytes() -> None:
    take = tone(1.0)
    first, again, other = (converter().convert(take, ConvertSettings(seed=s)).audio for s in (1, 1, 2))
    assert first.tobytes() == again.tobytes()
    assert first.tobytes() != other.tobytes()


@QUICK
@given(
    seed=st.integers(0, 2**64 - 1), start=st.integers(0, 20_000), count=st.integers(0, 9000), width=st.integers(1, 5)
)
def test_noise_is_addressed_by_position(seed: int, start: int, count: int, width: int) -> None:
    noise = SeededNoise(seed)
    rows = noise.normal("prior", start, count, width)
    assert rows.shape == (count, width)
    half = count // 2
    assert np.array_equal(rows[half:], noise.normal("prior", start + half, count - half, width))


def test_noise_is_standard_normal_and_tables_differ() -> None:
    noise = SeededNoise(0)
    a, b = noise.normal("prior", 0, 20_000, 3), noise.normal("source", 0, 20_000, 3)
    assert abs(a.mean()) < 0.01 and abs(a.std() - 1) < 0.01
    assert abs(np.corrcoef(a.ravel(), b.ravel())[0, 1]) < 0.02


def test_given_noise_says_what_is_missing() -> None:
    with pytest.raises(SettingsError, match=r"'prior' needs shape \[>= 10, 2\]"):
        GivenNoise({"prior": np.zeros((5, 2), np.float32)}).normal("prior", 0, 10, 2)


def test_hours_pass_in_bounded_memory() -> None:
    """A quarter of an hour more must not cost memory: blocks are made and dropped on the way."""

    def blocks(minutes: int) -> Iterator[Array]:
        block = tone(10.0)
        for _ in range(minutes * 6):
            yield block

    def peak(minutes: int) -> tuple[int, int]:
        tracemalloc.start()
        samples = sum(len(part.audio) for part in converter().stream(blocks(minutes)))
        _, high = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return samples, high

    (short, low), (long, high) = peak(8), peak(24)
    assert (short, long) == (8 * 60 * 48000, 24 * 60 * 48000)
    assert high < 1.15 * low


@pytest.mark.parametrize("seconds", [1.0, 9.7, 22.0])
def test_sections_cover_the_take_once(seconds: float) -> None:
    take = (np.random.default_rng(0).standard_normal(round(seconds * 48000)) * 0.1).astype(np.float32)
    parts = list(split_sections([take], section=16 * 16000 if seconds > 16 else 20 * 16000))
    assert sum(p.take_samples for p in parts) == len(take)
    assert [p.last for p in parts] == [False] * (len(parts) - 1) + [True]
    own = np.concatenate([p.audio[p.before : len(p.audio) - p.after] for p in parts])
    assert len(own) == round(len(take) / 3)
    for before, after in itertools.pairwise(parts):
        assert after.start == before.start + before.samples and after.start % FRAME == 0
        assert np.array_equal(before.audio[-before.after :], after.audio[after.before :][: before.after])


def test_chunks_cut_in_the_quiet() -> None:
    audio = np.ones(100 * 16000)
    audio[36 * 16000 : 36 * 16000 + 400] = 0
    audio[77 * 16000 : 77 * 16000 + 400] = 0
    first, second, third = plan_chunks(audio, len(audio) + 2 * PAD, 10_000)
    assert abs(second.start - 36 * 16000 - 200) <= 200 and abs(third.start - 77 * 16000 - 200) <= 200
    assert first.frames + second.frames + third.frames == 10_000
    assert first.stop == second.start + 2 * PAD + FRAME and third.stop == len(audio) + 2 * PAD
    assert len(plan_chunks(audio[: 41 * 16000 - FRAME], 43 * 16000, 4099)) == 1


def test_quietest_is_the_first_minimum() -> None:
    assert quietest(np.zeros(4000), 1000, 3000) == 1000


def test_protect_draws_voiceless_frames_back() -> None:
    units, original = np.ones((4, 2), np.float32), np.zeros((4, 2), np.float32)
    f0 = np.array([0, 100, 0.5, 300], np.float32)
    assert blend_protected(units, original, f0, 0.25)[:, 0].tolist() == [0.25, 1, 0.25, 1]


def test_progress_counts_up_and_cancel_stops() -> None:
    seen: list[float] = []
    cancel = threading.Event()

    def watch(progress: object) -> None:
        seen.append(progress.seconds_done)  # type: ignore[attr-defined]
        if len(seen) == 5:
            cancel.set()

    with pytest.raises(CancelledError):
        converter().convert(tone(2.0), on_progress=watch, cancel=cancel)
    assert len(seen) == 5 and seen == sorted(seen)


@pytest.mark.parametrize(
    ("take", "message"),
    [
        (np.zeros(0, np.float32), "0.000 s"),
        (np.zeros(2399, np.float32), "shortest"),
        (np.zeros((48000, 2), np.float32), "mono"),
        (np.array([0.0] * 48000 + [np.nan], np.float32), "at 1.000 s"),
        (np.array([np.inf] * 4800, np.float32), "at 0.000 s"),
    ],
)
def test_takes_that_cannot_be_converted(take: Array, message: str) -> None:
    with pytest.raises(AudioError, match=message):
        converter().convert(take)


def test_silence_and_a_tenth_of_a_second_convert() -> None:
    for take in (np.zeros(48000, np.float32), tone(0.1), tone(0.05)):
        result = converter().convert(take).audio
        assert len(result) == len(take) and np.isfinite(result).all()


def test_parts_that_do_not_fit() -> None:
    class Wide(LevelEncoder):
        spec = ContentSpec("wide", 7)

    with pytest.raises(VoiceFormatError, match=r"width 1, the content encoder wide makes 7"):
        Converter(Wide(), LevelPitch(), LevelVoice())
    with pytest.raises(ModelMissingError, match="pitch extractor"):
        Converter(LevelEncoder(), None, LevelVoice())
    assert len(Converter(LevelEncoder(), None, LevelVoice(uses_f0=False)).convert(tone(1.0)).f0) == 0
    with pytest.raises(SettingsError, match="speakers 0 to 2"):
        converter().convert(tone(1.0), ConvertSettings(speaker=3))
    with pytest.raises(SettingsError, match="median"):
        converter().convert(tone(1.0), ConvertSettings(auto_key=True))


@pytest.mark.parametrize(
    "bad",
    [{"key": 37}, {"key": "2"}, {"index_rate": 1.1}, {"protect": float("nan")}, {"speaker": 1.0}, {"seed": -1},
     {"unvoiced": "hum"}, {"loud": 1}, {"key": True}, {"auto_key": 1}, {"scale": "foo"},
     {"scale": []}, {"root": "H"}, {"root": 3}],
)  # fmt: skip
def test_settings_out_of_range_are_refused(bad: dict[str, object]) -> None:
    with pytest.raises(SettingsError, match=next(iter(bad))):
        ConvertSettings.from_mapping(bad)


def test_key_moves_the_melody() -> None:
    result = converter().convert(tone(1.0), ConvertSettings(key=12))
    voiced = result.f0_source > 0
    assert np.allclose(result.f0[voiced], 400) and not result.f0[~voiced].any()
    filled = converter().convert(tone(1.0), ConvertSettings(unvoiced="interpolate"))
    assert np.allclose(filled.f0, 200)
