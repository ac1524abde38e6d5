"""What a live client keeps until the server needs it no more."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rocktop_ray.errors import (
    ProtocolError,
)
from rocktop_ray.live.messages import Audio
from rocktop_ray.live.outbox import Outbox


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_an_outbox_loses_and_doubles_nothing(data: st.DataObject) -> None:
    """A model of the whole: whatever is kept, dropped and asked for again, the server gets each block at its place."""
    outbox = Outbox("f32", 10**9)
    lengths: list[int] = []
    got = 0  # blocks that the server has
    kept = -1
    for _ in range(data.draw(st.integers(1, 40))):
        step = data.draw(st.sampled_from(["put", "take", "take", "answer", "keep", "drop"]))
        if step == "put":
            lengths.append(data.draw(st.integers(1, 50)))
            outbox.put(np.zeros(lengths[-1], np.float32))
        elif step == "take" and (entry := outbox.take(100)):
            assert (entry.seq, entry.position, entry.samples) == (got, sum(lengths[:got]), lengths[got])
            got += 1
            assert outbox.unanswered <= max(100, entry.samples)
        elif step == "answer" and outbox.received + 1 < got:
            seq = outbox.received + 1
            assert outbox.answer(Audio(seq, sum(lengths[:seq]), np.zeros(lengths[seq], np.float32)))
            assert not outbox.answer(Audio(seq, sum(lengths[:seq]), np.zeros(lengths[seq], np.float32)))
        elif step == "keep":
            kept = data.draw(st.integers(kept, max(kept, min(got - 1, outbox.received))))
            outbox.keep(kept)
        elif step == "drop":
            got = data.draw(st.integers(kept + 1, got))
            outbox.rewind(got)
        assert outbox.waiting == sum(lengths[got:])
    if kept >= 0:
        with pytest.raises(ProtocolError, match="can be sent"):
            outbox.rewind(kept)


def test_an_outbox_is_bounded() -> None:
    outbox = Outbox("s16", 1000)
    for _ in range(50):
        outbox.put(np.zeros(100, np.float32))
        while outbox.take(10**6):
            pass
    with pytest.raises(ProtocolError, match="40 to 50 can be sent"):
        outbox.rewind(39)
    outbox.rewind(40)
    assert outbox.waiting == 1000
