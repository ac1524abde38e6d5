"""The parts of a live session on the server: what is parked, how gaps are filled, clocks and grids."""

from __future__ import annotations

import contextlib
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from live_parts import RATE, sung

from rocktop_ray.errors import (
    ProtocolError,
    StageLostError,
    StreamStateError,
)
from rocktop_ray.live.messages import Audio, Flags
from rocktop_ray.settings import ConvertSettings
from serve_apps.live.engine import Fed
from serve_apps.live.session.clock import Budget, LiveClock
from serve_apps.live.session.concealment import Joiner, predict
from serve_apps.live.session.course import Course, fresh_save
from serve_apps.live.session.endings import close_code
from serve_apps.live.session.parking import Head, Totals, pack_save, unpack_save
from serve_apps.live.session.tape import Block, How
from serve_apps.orders import VoiceRef


@settings(max_examples=20, deadline=None)
@given(data=st.data())
def test_what_is_parked_comes_back_the_same(data: st.DataObject) -> None:
    lengths = st.lists(st.integers(1, 50), max_size=6)
    noise = np.random.default_rng(data.draw(st.integers(0, 99)))

    def samples(length: int) -> np.ndarray:
        return noise.normal(size=length).astype(np.float32)

    how = How(VoiceRef("anna@1", "anna"), ConvertSettings(key=2))
    other = replace(how, bypass=True)
    head = Head("s", data.draw(st.none() | st.text(max_size=5)), RATE, "s16", 80, 80, "live")
    save = replace(
        fresh_save(head, how, {"key": 2}, 9),
        state=data.draw(st.none() | st.binary(max_size=90)),
        outputs=tuple(Audio(n, 7, samples(size), Flags.LATE) for n, size in enumerate(data.draw(lengths))),
        totals=Totals(4, 3, 2, 1),
        heard=samples(30),
        began=1.5e9,  # the length of what is packed must not depend on the clock
        seq=5,
        at=123,
    )
    position, blocks = save.at, []
    for n, size in enumerate(data.draw(lengths)):
        blocks.append(Block(save.seq + n, position, samples(size), data.draw(st.sampled_from([how, other]))))
        position += size
    save = replace(save, blocks=tuple(blocks))
    packed = pack_save(save)
    again = unpack_save(packed)
    assert pack_save(again) == packed
    assert (again.head, again.how, again.asked, again.totals) == (save.head, save.how, save.asked, save.totals)
    assert again.outputs == save.outputs and [block.how for block in again.blocks] == [block.how for block in blocks]
    cut = data.draw(st.integers(0, len(packed) - 1))
    with pytest.raises(StreamStateError):
        unpack_save(packed[:cut])
    spoiled = bytearray(packed)
    spoiled[cut] ^= data.draw(st.integers(1, 255))
    with contextlib.suppress(StreamStateError):
        unpack_save(bytes(spoiled))


@pytest.mark.parametrize("rate", [8000, 44_100, 192_000])
def test_what_was_heard_is_continued_without_a_step(rate: int) -> None:
    at = np.arange(rate // 10) / rate
    wave = sum(0.3 / n * np.sin(2 * np.pi * 310 * n * at + n) for n in range(1, 5)).astype(np.float32)
    known = len(wave) // 2
    guess = predict(wave[:known][-round(0.03 * rate) :], round(0.005 * rate), 64)
    joined = np.concatenate([wave[:known], guess])
    assert np.abs(np.diff(joined)).max() <= 1.5 * np.abs(np.diff(wave)).max()
    assert np.abs(guess).max() <= np.abs(wave).max()
    assert rate > 8000 or np.abs(guess - wave[known : known + len(guess)]).max() < 0.2
    assert not predict(np.zeros(2000, np.float32), 5, 64).any() and not predict(wave[:3], 5, 64).any()


@pytest.mark.parametrize("place", [0, -1])
def test_a_lone_sample_is_continued_by_silence(place: int) -> None:
    """Where the window is 0, so that nothing is left to guess from."""
    heard = np.zeros(1323, np.float32)
    heard[place] = 0.5
    assert not predict(heard, 220, 88).any()


def test_the_joiner_does_not_care_how_the_stream_is_cut() -> None:
    wave, take = sung(0.2), sung(0.3)[800:]
    whole, parts = Joiner(RATE), Joiner(RATE)
    expected = np.concatenate(
        [whole.converted(wave[:600], take[:600]), whole.missing(take[600:900]), whole.converted(wave[900:], take[900:])]
    )
    found = [parts.converted(wave[:600], take[:600])]
    found += [parts.missing(take[n : n + 300]) for n in (600,)]
    found += [parts.converted(wave[n : n + 7], take[n : n + 7]) for n in range(900, len(wave), 7)]
    assert np.allclose(np.concatenate(found), expected, atol=1e-6)
    assert np.array_equal(expected[640:900], take[640:900]) and np.array_equal(expected[940:], wave[940:])


@pytest.mark.parametrize("block", [1, 7, 441, 1764])
def test_a_bypassed_stream_that_is_late_stays_the_take(block: int) -> None:
    """The engine's take was resampled twice: it is off by some thousandths, and nothing else may be."""
    rng, rate = np.random.default_rng(3), 44_100
    take = np.concatenate([sung(0.1, rate), rng.uniform(-0.5, 0.5, rate // 10).astype(np.float32), sung(0.1, rate)])
    same = take + rng.uniform(-0.002, 0.002, len(take)).astype(np.float32)
    joiner, found, low = Joiner(rate), [], 0
    for number in range(-(-len(take) // block)):
        high, late = min(low + block, len(take)), low > 2000 and number % 10 < 3
        found.append(joiner.missing(take[low:high]) if late else joiner.converted(same[low:high], take[low:high]))
        low = high
    assert np.abs(np.concatenate(found) - take).max() <= 0.0041
    other = Joiner(rate)
    other.converted(-take[:4410], take[:4410])
    assert np.abs(other.missing(take[4410:6000]) - take[4410:6000]).max() > 0.1, "a voice is faded out"


def test_deadlines_and_real_time() -> None:
    clock = LiveClock(1000, slack=0.02, credit=0.5)
    assert clock.due(5.0, 40, 0, 40) == pytest.approx(5.06)
    assert clock.due(5.0, 10, 30, 40) == pytest.approx(5.09)
    assert clock.due(5.0, 10, 0, 10) == pytest.approx(5.09), "answers go out in order"
    assert all(clock.ahead(at / 25, 40) == 0 for at in range(10_000)), "a clock as ours"
    drifting = LiveClock(1000, 0.02, 0.5)
    assert all(drifting.ahead(at / 25.3, 40) == 0 for at in range(10_000)), "one that is 1.2 % fast"
    fast = LiveClock(1000, 0.02, 0.5)
    assert max(fast.ahead(at / 50, 40) for at in range(200)) > 1
    budget = Budget(10, 20)
    assert sum(budget.take(1.0) for _ in range(50)) == 20 and budget.take(1.2)


@pytest.mark.parametrize(("crowd", "every"), [(1, 1), (3, 1), (4, 2), (50, 5)])
def test_many_sessions_are_saved_less_often(crowd: int, every: int) -> None:
    """Blocks of 40 ms: with up to 3, with 4 and with 50 sessions after 36, 48 and at most 200 ms."""
    how, block = How(VoiceRef("anna", "1"), ConvertSettings()), RATE // 25
    course = Course(fresh_save(Head("s", None, RATE, "f32", block, block, "live"), how, {}, 0), 0, 0.0)
    course.crowd = crowd
    saved = []
    for seq in range(10):
        course.add(Block(seq, seq * block, np.zeros(block, np.float32), how))
        batch = course.batch()
        saved.append(course.wants_save(batch))
        course.gave(batch, save=saved[-1])
        waves = tuple(cut.samples for cut in batch)
        fed = Fed(waves, (0,) * len(waves), b"state" if saved[-1] else None, 0.0, 0.0, "here")
        course.took(batch, fed, [False] * len(batch))
    assert saved == [(seq + 1) % every == 0 for seq in range(10)]


def test_codes_of_endings() -> None:
    assert close_code(ProtocolError("x")) == 4400 and close_code(StageLostError("x")) == 4503
    assert close_code(ValueError("x")) == 4500 and close_code(StreamStateError("x")) == 4410
