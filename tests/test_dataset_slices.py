"""Where takes are sliced, how they are levelled, and which settings are taken."""

from itertools import pairwise

import numpy as np
import pytest
from dataset_parts import RATE, config, song
from hypothesis import given, settings
from hypothesis import strategies as st

from rocktop_ray.audio.slice import slice_spans
from rocktop_ray.errors import SettingsError
from train_loops.dataset.config import DatasetConfig
from train_loops.dataset.slices import FrameLevels, group, level_gain, plan_slices


def levels(audio: np.ndarray, cuts: list[int]) -> np.ndarray:
    meter = FrameLevels(RATE)
    for block in np.split(audio, cuts):
        meter.add(block)
    return meter.levels()


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 50), st.floats(0.2, 30), st.lists(st.integers(0, 400_000), max_size=6))
def test_from_blocks_as_from_the_whole(seed, seconds, cuts):
    audio = song(seconds, seed)
    spans = plan_slices(levels(audio, sorted(cuts)), len(audio), config(slicing="pauses", slice_seconds=20.0)).spans
    grid = RATE // 50
    whole = [(start // grid * grid, stop // grid * grid) for start, stop in slice_spans(audio, RATE)]
    assert spans == [span for span in whole if span[1] - span[0] >= 0.4 * RATE]


@settings(max_examples=30, deadline=None)
@given(st.floats(0.1, 60), st.sampled_from([(3.7, 0.3), (3.0, 0.3), (1.0, 0.0), (5.0, 1.0)]))
def test_pieces_overlap_and_lose_nothing(seconds, lengths):
    length, overlap = lengths
    samples = round(seconds * RATE)
    made = config(slicing="fixed", slice_seconds=length, overlap=overlap)
    found = plan_slices(np.ones(samples // 240 + 1), samples, made)
    if seconds < 0.4:
        assert not found.spans and found.short == 1
        return
    spans = found.spans
    assert spans[0][0] == 0
    assert samples - spans[-1][1] < 0.02 * RATE or found.short
    for before, after in pairwise(spans):
        assert before[1] - before[0] == pytest.approx(length * RATE, abs=RATE // 50)
        assert before[1] - after[0] == pytest.approx(overlap * RATE, abs=RATE // 50)
    assert all(stop - start <= (length + overlap) * RATE for start, stop in spans)


def test_rvcs_rest_of_four_seconds_stays_whole():
    made = config(slicing="fixed")
    loud = np.ones(100_000)
    assert plan_slices(loud, 4 * RATE, made).spans == [(0, 4 * RATE)]
    assert plan_slices(loud, round(4.02 * RATE), made).spans == [(0, 59_200), (54_400, 64_320)]


def test_silent_pieces_are_dropped_and_counted():
    audio = song(30)
    audio[10 * RATE : 20 * RATE] = 0
    found = plan_slices(levels(audio, []), len(audio), config(slicing="fixed"))
    assert found.silent == 2
    assert len(found.spans) + found.silent + found.short == 9


def test_parts_are_bounded():
    spans = [(start, start + 3 * RATE) for start in range(0, 100 * RATE, 3 * RATE)]
    parts = group(spans, RATE)
    assert [span for part in parts for span in part] == spans
    assert all(part[-1][1] - part[0][0] <= 28 * RATE for part in parts)
    assert len(parts) == 4


@settings(max_examples=50, deadline=None)
@given(st.floats(1e-6, 100))
def test_levels_are_rvcs_and_safe(peak):
    wave = np.array([0.1, -peak], np.float32) * np.float32(1.0)
    largest = float(np.abs(wave).max())
    gain = level_gain(wave, "rvc")
    assert gain * largest <= 0.9901
    if largest < 1.2:
        assert gain * largest == pytest.approx(0.675 + 0.25 * largest, rel=1e-5)
    assert level_gain(wave, "none") == 1
    assert level_gain(np.zeros(5, np.float32), "rvc") == 1


@pytest.mark.parametrize(
    "values",
    [
        {"bitrate": 1},
        {"rate": "48000"},
        {"rate": 44_123},
        {"rate": 8_000},
        {"slicing": "sometimes"},
        {"level": "loud"},
        {"overlap": 4.0},
        {"min_interval": 2_000},
        {"highpass": 1},
        {"rate": True},
        {"threshold_db": float("nan")},
    ],
)
def test_wrong_settings_are_refused(values):
    with pytest.raises(SettingsError):
        DatasetConfig.from_mapping(values)


def test_settings_come_back():
    made = DatasetConfig.from_mapping({"slice_seconds": 5, "encoder": "whisper-base"})
    assert made.slice_seconds == 5.0
    assert DatasetConfig.from_mapping(made.as_mapping()) == made
    # What does not change where a take is sliced does not make it be looked at again.
    assert made.scan_fingerprint == DatasetConfig.from_mapping({"slice_seconds": 5.0}).scan_fingerprint
    assert made.scan_fingerprint != DatasetConfig().scan_fingerprint
