"""Arithmetic on F0 curves."""

from __future__ import annotations

import golden_data
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rocktop_ray.errors import SettingsError
from rocktop_ray.features.pitch import curves

HZ = st.one_of(st.just(0.0), st.floats(50, 1100))
CURVE = st.lists(HZ, max_size=60).map(np.array)


def cents(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return 1200 * np.log2(np.asarray(a, np.float64) / np.asarray(b, np.float64))


def test_shift_is_in_semitones():
    assert curves.shift([110, 0, 220], 12) == pytest.approx([220, 0, 440], rel=1e-6)
    assert curves.shift([440], -7) == pytest.approx([293.66477], rel=1e-6)


def test_the_dialect_of_2026_as_its_peer_computes_it():
    golden = golden_data.case("v2_48k_f0")
    assert (golden["f0_raw"] == 0).sum() > 50
    assert curves.interpolate_unvoiced(golden["f0_raw"]) == pytest.approx(golden["f0_hz"], rel=1e-6)


def test_the_classic_dialect_as_its_peer_computes_it():
    golden = golden_data.case("v2_48k_f0_classic")
    assert curves.shift(golden["f0_raw"], 3) == pytest.approx(golden["f0_hz"], rel=1e-6)


def test_interpolation_between_and_beyond():
    assert curves.interpolate_unvoiced([0, 100, 0, 0, 130, 0]) == pytest.approx([100, 100, 110, 120, 130, 130])
    assert not curves.interpolate_unvoiced(np.zeros(5)).any()
    assert len(curves.interpolate_unvoiced([])) == 0


def test_median_filter_removes_an_octave_jump_and_keeps_gaps():
    f0 = np.array([200, 201, 400, 203, 204, 0, 0, 300, 0], float)
    assert curves.median_filter(f0, 1) == pytest.approx([200.5, 201, 203, 204, 203.5, 0, 0, 300, 0])
    assert curves.median_filter(f0, 0) == pytest.approx(f0)
    with pytest.raises(SettingsError):
        curves.median_filter(f0, -1)


@pytest.mark.parametrize(
    ("hz", "scale", "root", "note"),
    [
        (445, "chromatic", "C", 440.0),
        (270, "major", "C", 261.626),
        (270, "chromatic", "C", 277.183),
        (232.9, "minor", "A", 220.0),  # just nearer to A than to B
        (233.3, "minor", "A", 246.942),
        (31, "major-pentatonic", "F#", 29.1352),
        (1040, "major", "Bb", 1046.502),
    ],
)
def test_autotune_lands_on_the_nearest_note(hz, scale, root, note):
    assert curves.autotune([hz, 0.0], scale=scale, root=root) == pytest.approx([note, 0], rel=1e-5)


def test_autotune_strength_is_linear_in_cents():
    f0 = np.array([430.0])
    for strength in (0.0, 0.25, 0.5, 1.0):
        tuned = curves.autotune(f0, strength=strength)
        assert cents(tuned, f0) == pytest.approx(strength * cents([440.0], f0), abs=0.01)


def test_a_key_shift_before_autotune_still_applies():
    tuned = curves.autotune(curves.shift([440.0], 5), scale="chromatic")
    assert tuned == pytest.approx([587.33], rel=1e-4)


def test_autotune_follows_another_tuning():
    assert curves.autotune([445.0], tuning_hz=432) == pytest.approx([457.69], rel=1e-4)


@pytest.mark.parametrize(
    "wrong", [{"scale": "jazz"}, {"root": "H"}, {"root": ""}, {"root": "Cx"}, {"strength": 1.5}, {"tuning_hz": 44}]
)
def test_autotune_settings_are_checked(wrong):
    with pytest.raises(SettingsError):
        curves.autotune([440.0], **wrong)


def test_note_names():
    names = ["C", "C#", "Db", "E", "F♯", "Cb", "b", "B#"]
    assert [curves.note_class(name) for name in names] == [0, 1, 1, 4, 6, 11, 11, 0]


@pytest.mark.parametrize(
    ("take", "voice", "octaves", "key"),
    [
        (110, 220, True, 12),
        (120, 230, True, 12),
        (200, 255, True, 0),
        (200, 255, False, 4),
        (440, 100, True, -24),
        (60, 1000, True, 24),
        (60, 1000, False, 24),
        (110, (110, 440), True, 12),
        (220, 220, False, 0),
    ],
)
def test_suggested_key(take, voice, octaves, key):
    f0 = np.array([0, take, take, 0, take * 1.01])
    assert curves.suggest_key(f0, voice, octaves=octaves) == key


def test_suggested_key_of_nothing_and_for_nonsense():
    assert curves.suggest_key(np.zeros(10), 200.0) == 0
    for voice in (0.0, -5.0, float("nan"), (300.0, 200.0), (0.0, 200.0)):
        with pytest.raises(SettingsError):
            curves.suggest_key([200.0], voice)


def test_voiced_median():
    assert curves.voiced_median([0, 100, 300, 0, 200]) == 200
    assert curves.voiced_median([0, 0]) is None


@pytest.mark.parametrize("bad", [[np.nan], [-1.0], [np.inf], [[100.0]]])
def test_what_is_no_curve(bad):
    for act in (curves.interpolate_unvoiced, curves.voiced_median, curves.autotune):
        with pytest.raises(SettingsError):
            act(bad)


@settings(deadline=None, max_examples=40)
@given(CURVE, st.sampled_from(sorted(curves.SCALES)), st.sampled_from(["C", "F#", "Bb"]))
def test_autotune_stays_near_and_in_the_scale(f0, scale, root):
    tuned = curves.autotune(f0, scale=scale, root=root)
    sung = f0 > 0
    assert ((tuned > 0) == sung).all() and tuned.dtype == np.float32
    notes = np.sort((np.array(curves.SCALES[scale]) + curves.note_class(root)) % 12)
    reach = np.diff([*notes, notes[0] + 12]).max() / 2 * 100
    assert (np.abs(cents(tuned[sung], f0[sung])) <= reach + 0.01).all()
    semitone = 12 * np.log2(tuned[sung].astype(np.float64) / 440) + 9
    assert np.isin(np.round(semitone) % 12, notes).all() and np.allclose(semitone, np.round(semitone), atol=1e-3)


@settings(deadline=None, max_examples=40)
@given(CURVE, st.integers(0, 6))
def test_filters_keep_voicing_and_range(f0, radius):
    sung = f0 > 0
    smooth = curves.median_filter(f0, radius)
    assert ((smooth > 0) == sung).all()
    filled = curves.interpolate_unvoiced(f0)
    assert np.allclose(filled[sung], f0[sung], rtol=1e-6)
    if sung.any():
        for curve in (smooth[sung], filled):
            assert curve.min() >= f0[sung].min() * (1 - 1e-6) and curve.max() <= f0[sung].max() * (1 + 1e-6)


@settings(deadline=None, max_examples=40)
@given(st.floats(60, 900), st.floats(60, 900), st.booleans())
def test_a_suggested_key_never_makes_it_worse(take, voice, octaves):
    key = curves.suggest_key([take], voice, octaves=octaves)
    before, after = abs(cents([voice], [take])[0]), abs(cents([voice], curves.shift([take], key))[0])
    assert after <= before + 0.01 and abs(key) <= 24 and (not octaves or key % 12 == 0)
