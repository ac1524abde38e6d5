"""The buffer before the device: exact where clocks agree, steady where they do not, honest where it runs empty."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rocktop_ray.live.alignment import Alignment
from rocktop_ray.live.messages import Audio
from rocktop_ray.live.playout import MOST_STRETCH, Playout

RATE = 16_000


def tone(start: int, samples: int, hz: float = 440.0) -> np.ndarray:
    return np.sin(2 * np.pi * hz * np.arange(start, start + samples) / RATE).astype(np.float32)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(1, 900), min_size=5, max_size=40), st.integers(16, 500))
def test_equal_clocks_pass_bit_for_bit(pushes: list[int], pull: int) -> None:
    playout = Playout(RATE, 0.02)
    noise = np.random.default_rng(0).standard_normal(sum(pushes)).astype(np.float32)
    given_, played, owed = 0, [], 0
    for length in pushes:
        playout.push(noise[given_ : given_ + length])
        given_ += length
        owed += length
        while owed >= pull:
            played.append(playout.pull(pull))
            owed -= pull
    heard = np.concatenate(played) if played else np.zeros(0, np.float32)
    began = int(np.flatnonzero(heard)[0]) if heard.any() else len(heard)
    length = len(heard) - began
    if not playout.counts.underruns:
        assert np.array_equal(heard[began:], noise[:length])


@pytest.mark.parametrize("drift", [-5e-4, 1e-4])
def test_clocks_that_drift_are_followed(drift: float) -> None:
    """Three minutes: no underrun, the buffer where it should be, the tone still the same tone."""
    playout, block, pull = Playout(RATE, 0.04), 640, 160
    pieces = tone(0, 3 * RATE)  # 3 s are a whole number of periods and of blocks
    sent, due, low, last = 0, 0.0, [], []
    for _ in range(18_000):
        due += pull * (1 + drift)  # the sender's clock is faster by drift
        while sent + block <= due + block:
            playout.push(pieces[sent % len(pieces) :][:block])
            sent += block
        last.append(playout.pull(pull))
        low.append(playout.seconds)
        assert abs(playout.stretch) <= MOST_STRETCH
    assert playout.counts.underruns == playout.counts.dropped == 0
    assert abs(min(low[-1000:]) - 0.04) < 0.015
    heard = np.concatenate(last[-1000:])
    spectrum = np.abs(np.fft.rfft(heard * np.blackman(len(heard))))
    peak = int(spectrum.argmax())
    assert abs(peak * RATE / len(heard) - 440 * (1 + drift)) < 0.2
    spectrum[peak - 20 : peak + 21] = 0
    assert spectrum.max() < 1e-3 * len(heard) / 4  # nothing but the tone: no click in 10 s


def test_an_empty_buffer_is_counted_and_fills_again() -> None:
    playout = Playout(RATE, 0.05)
    assert not playout.pull(160).any() and playout.counts.underruns == 0  # has not begun
    playout.push(np.ones(1600, np.float32))
    played = [playout.pull(160) for _ in range(12)]
    assert playout.counts.underruns == 1 and playout.counts.silence == 320
    assert np.all(np.concatenate(played)[:1520] == 1) and np.all(np.diff(np.concatenate(played)[1500:]) <= 0)
    playout.push(np.ones(800, np.float32))
    assert not playout.pull(160).any()  # waits for its target
    playout.push(np.ones(160, np.float32))
    back = playout.pull(160)
    assert back[0] == 0 and back[-1] == 1 and playout.counts.underruns == 1


def test_what_comes_in_a_burst_is_left_out_without_a_click() -> None:
    playout = Playout(RATE, 0.05)
    playout.push(tone(0, 1600, 100))
    first = playout.pull(160)
    playout.push(tone(1600, 32_000, 100))
    assert playout.counts.dropped > 20_000 and playout.seconds == pytest.approx(0.05, abs=0.02)
    after = playout.pull(400)
    assert np.abs(np.diff(np.concatenate([first, after]))).max() < 0.06


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(1, 50), min_size=1, max_size=20), st.integers(0, 200), st.integers(0, 200), st.data())
def test_alignment(lengths: list[int], delay: int, other: int, data: st.DataObject) -> None:
    source = np.arange(1, sum(lengths) + 1, dtype=np.float32)
    change = data.draw(st.integers(0, len(lengths)))
    alignment, parts, position = Alignment(), [], 0
    for number, length in enumerate([*lengths, delay if change == len(lengths) else other]):
        late = other if number >= change and change < len(lengths) else delay
        padded = np.concatenate([np.zeros(late, np.float32), source, np.zeros(late + 50, np.float32)])
        samples = padded[position : position + length]
        parts.append(alignment.push(Audio(number, position, samples), late))
        position += length
    result = np.concatenate(parts)
    assert len(result) == len(source) == alignment.samples
    assert np.all((result == source) | (result == 0))
    if delay == other or change == len(lengths):
        assert np.array_equal(result, source)
