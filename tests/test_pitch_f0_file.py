"""F0 from a text file."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rocktop_ray.errors import AudioError, StorageError
from rocktop_ray.features.pitch.f0_file import parse_f0, read_f0_file, resample


def test_reads_what_editors_write(tmp_path):
    path = tmp_path / "melody.csv"
    path.write_text("\ufefftime,f0\r\n# a comment\r\n\r\n0.00, 100\r\n0.02;120 # rise\r\n0.03\t0\r\n0.05 0\r\n")
    assert read_f0_file(path) == pytest.approx([100, 110, 120, 0, 0, 0])


def test_starts_at_the_take_not_at_the_first_point():
    assert resample(np.array([0.03, 0.04]), np.array([200.0, 210.0])) == pytest.approx([0, 0, 0, 200, 210])


def test_sparse_points_are_joined_by_lines():
    assert resample(np.array([0.0, 1.0]), np.array([100.0, 200.0])) == pytest.approx(np.linspace(100, 200, 101))


def test_no_slope_between_voice_and_silence():
    assert resample(np.array([0.0, 0.1]), np.array([200.0, 0.0])) == pytest.approx([200.0] * 5 + [0.0] * 6)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("0,100\n0.1,abc\n", "line 2.*expected numbers"),
        ("0,100\n\n0.1,100,3\n", "line 3.*found 3"),
        ("0,100\n0.2,100\n0.1,100\n", "line 3.*ascend"),
        ("0,100\n0,100\n", "line 2.*ascend"),
        ("-1,100\n", "line 1.*time"),
        ("nan,100\n", "line 1.*time"),
        ("0,nan\n", "line 1.*F0"),
        ("0,-5\n", "line 1.*F0"),
        ("0,90000\n", "line 1.*F0"),
        ("1e9,100\n", "line 1.*time"),
        ("time,f0\ntime,f0\n", "line 2.*numbers"),
        ("# nothing\n", "no line"),
        ("", "no line"),
    ],
)
def test_bad_lines_are_named(tmp_path, text, message):
    path = tmp_path / "bad.csv"
    path.write_text(text)
    with pytest.raises(AudioError, match=f"bad.csv: .*{message}"):
        read_f0_file(path)


def test_files_that_are_none(tmp_path):
    path = tmp_path / "noise.csv"
    path.write_bytes(bytes(range(128, 256)))
    with pytest.raises(AudioError, match="not text"):
        read_f0_file(path)
    with pytest.raises(StorageError):
        read_f0_file(tmp_path / "absent.csv")
    with pytest.raises(StorageError):
        read_f0_file(tmp_path)


@settings(deadline=None, max_examples=50)
@given(st.lists(st.text(alphabet="0123456789.,;# \te-+naif\u0663", max_size=12), max_size=6))
def test_any_text_is_a_curve_or_one_error(lines):
    try:
        times, hz = parse_f0(lines)
    except AudioError:
        return
    assert len(times) == len(hz) > 0 and (np.diff(times) > 0).all() and times[0] >= 0
    if times[-1] < 1000:
        curve = resample(times, hz)
        assert np.isfinite(curve).all() and (curve >= 0).all() and curve.max() <= hz.max() * (1 + 1e-6)
