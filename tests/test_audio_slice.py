"""The slicer: pauses are cut where they are quiet, no sound is lost, slices are in order."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rocktop_ray.audio.slice import SliceSettings, slice_spans
from rocktop_ray.errors import SettingsError

RATE = 8_000


def build(*parts):
    """Seconds: positive of noise, negative of silence."""
    generator = np.random.default_rng(0)
    pieces = [
        generator.uniform(-0.5, 0.5, round(part * RATE)) if part > 0 else np.zeros(round(-part * RATE))
        for part in parts
    ]
    return np.concatenate(pieces).astype(np.float32)


def test_a_long_pause_loses_its_middle():
    spans = slice_spans(build(2, -3, 2), RATE)
    assert len(spans) == 2
    (first, end), (begin, last) = spans
    assert first == 0 and last == 7 * RATE
    assert 2 * RATE <= end <= 2.5 * RATE + RATE * 0.06
    assert 4.5 * RATE - RATE * 0.06 <= begin <= 5 * RATE


def test_a_short_pause_is_cut_once_and_a_breath_not():
    spans = slice_spans(build(2, -0.49, 2), RATE)
    assert len(spans) == 2
    assert spans[0][1] == spans[1][0]
    assert 2 * RATE <= spans[0][1] <= 2.49 * RATE
    assert slice_spans(build(2, -0.2, 2), RATE) == [(0, round(4.2 * RATE))]


def test_pauses_that_end_too_early_are_not_cut():
    spans = slice_spans(build(0.4, -0.6, 0.4, -0.6, 3), RATE)
    assert len(spans) == 2
    assert 1.4 * RATE <= spans[0][1] <= 2 * RATE


def test_silent_ends_are_shortened():
    spans = slice_spans(build(-2, 3, -2), RATE)
    assert len(spans) == 1
    start, stop = spans[0]
    assert 1.4 * RATE <= start <= 2 * RATE
    assert 5 * RATE <= stop <= 5.6 * RATE


def test_what_has_no_pause_or_no_sound():
    assert slice_spans(build(5), RATE) == [(0, 5 * RATE)]
    assert slice_spans(build(-5), RATE) == []
    assert slice_spans(build(1), RATE) == [(0, RATE)]
    assert slice_spans(np.zeros(0, np.float32), RATE) == []
    stereo = np.stack([build(2, -3, 2)] * 2, axis=1)
    assert slice_spans(stereo, RATE) == slice_spans(build(2, -3, 2), RATE)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.floats(0.05, 3).flatmap(lambda t: st.sampled_from([t, -t])), min_size=1, max_size=10))
def test_sound_is_never_lost(parts):
    audio = build(*parts)
    spans = slice_spans(audio, RATE)
    assert all(0 <= start < stop <= len(audio) for start, stop in spans)
    assert all(before[1] <= after[0] for before, after in itertools.pairwise(spans))
    kept = np.zeros(len(audio), bool)
    for start, stop in spans:
        kept[start:stop] = True
    assert not audio[~kept].any()


def test_settings_are_checked():
    with pytest.raises(SettingsError, match="min_length >= min_interval"):
        SliceSettings(min_length=100)
