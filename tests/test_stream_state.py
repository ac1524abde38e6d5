"""States of streams survive the way to another process, and nothing else does."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rocktop_ray.errors import StreamStateError
from rocktop_ray.live.state import pack, unpack


@dataclass(frozen=True)
class Inner:
    rows: torch.Tensor
    turns: float


@dataclass(frozen=True)
class Outer:
    frames: int
    inner: tuple[Inner, ...]
    audio: np.ndarray
    name: str
    running: bool
    nothing: None = None


def state(value: float = 0.5) -> Outer:
    inner = tuple(Inner(torch.full((3, 2), value * n), value) for n in range(2))
    return Outer(7, inner, np.arange(4, dtype=np.float64) * value, "alto", True)


def test_a_state_comes_back_to_the_bit() -> None:
    sent = state(1 / 3)
    found = unpack(pack(sent), state())
    assert pack(found) == pack(sent)
    assert torch.equal(found.inner[1].rows, sent.inner[1].rows)
    assert found.inner[0].rows.dtype == torch.float32
    assert (found.frames, found.name, found.running, found.nothing) == (7, "alto", True, None)
    found.audio[0] = 1  # one's own memory, writable


@pytest.mark.parametrize(
    "other",
    [
        replace(state(), audio=np.zeros(5)),
        replace(state(), audio=np.zeros(4, np.float32)),
        replace(state(), inner=state().inner[:1]),
        replace(state(), frames=True),
        replace(state(), audio=np.array([1.0, np.nan, 0, 0])),
        replace(state(), frames=2**60),
        replace(state(), name="x" * 5000),
    ],
)
def test_a_state_of_another_stream_is_refused(other: Outer) -> None:
    with pytest.raises(StreamStateError):
        unpack(pack(other), state())


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_damaged_bytes_are_refused_or_harmless(data: st.DataObject) -> None:
    good = bytearray(pack(state()))
    for _ in range(data.draw(st.integers(1, 4))):
        good[data.draw(st.integers(0, len(good) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(good) + 3))
    try:
        found = unpack(bytes(good[:cut]), state())
    except StreamStateError:
        return
    assert [part.rows.shape for part in found.inner] == [(3, 2), (3, 2)]


def test_what_is_no_state_is_not_packed() -> None:
    with pytest.raises(TypeError):
        pack(Inner(torch.zeros(1), object()))  # type: ignore[arg-type]
