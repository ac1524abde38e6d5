"""The high-pass of streams against scipy's, and what a live replica need not import."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import signal

from rocktop_ray.audio.highpass import CUTOFF
from rocktop_ray.live.highpass import StreamHighpass, butterworth_highpass
from rocktop_ray.protocols import ENCODER_RATE


@pytest.mark.parametrize(("cutoff", "rate"), [(CUTOFF, ENCODER_RATE), (1000.0, 8000.0)])
def test_it_is_a_butterworth_filter(cutoff: float, rate: float) -> None:
    expected = signal.sosfreqz(signal.butter(5, cutoff, btype="high", fs=rate, output="sos"), 4096)[1]
    assert np.abs(signal.sosfreqz(butterworth_highpass(cutoff, rate), 4096)[1] - expected).max() < 1e-10


@settings(max_examples=20, deadline=None)
@given(st.lists(st.integers(1, 700), min_size=1, max_size=8), st.integers(1, 4))
def test_hops_of_any_length_are_one_stream(lengths: list[int], streams: int) -> None:
    """float64 rounding only: 1e-11 of samples about 1."""
    made = StreamHighpass(CUTOFF, ENCODER_RATE)
    take = np.random.default_rng(sum(lengths)).standard_normal((streams, sum(lengths))) + 0.5
    held, parts, at = np.stack([made.begin()] * streams), [], 0
    for length in lengths:
        held, wave = made.step(held, take[:, at : at + length].astype(np.float32))
        parts.append(wave)
        at += length
    expected = signal.sosfilt(made.sections, take.astype(np.float32).astype(np.float64), axis=-1)
    assert np.abs(np.concatenate(parts, 1) - expected).max() < 1e-11


def test_a_constant_dies_away() -> None:
    made = StreamHighpass(CUTOFF, ENCODER_RATE)
    _, wave = made.step(made.begin()[None], np.ones((1, ENCODER_RATE), np.float32))
    assert np.abs(wave[:, -100:]).max() < 1e-9


def test_a_live_replica_starts_without_scipys_signals() -> None:
    """They take a second of a core, beside those who are singing."""
    program = "import sys, serve_apps.live.compute.process; print('scipy.signal' in sys.modules)"
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "False"
