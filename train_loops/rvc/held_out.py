"""Which held-out slices a validation hears."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterator, Sequence

from train_loops.dataset.reader import Dataset

_ENOUGH = 100
"""Frames; shorter slices are taken last."""
_Turn = tuple[bool, bytes, int]
"""Whether it is short, a draw, number of the slice."""


def choose(held_out: Dataset, wanted: int, *, shortest: int) -> list[int]:
    """Numbers of ``wanted`` slices of at least ``shortest`` frames, or of all there are.

    Singers take turns, and of each singer the takes, in an order that depends on the names of takes only: a bigger
    number begins with the same slices. Of a take, slices of a second or more come before shorter ones.
    """
    frames, singers = held_out.frames, held_out.speaker_numbers
    queues: dict[int, dict[str, list[_Turn]]] = defaultdict(lambda: defaultdict(list))
    for index, take in enumerate(held_out.takes):
        if frames[index] >= shortest:
            queue = queues[int(singers[index])][take]
            queue.append((bool(frames[index] < _ENOUGH), _draw(f"{take}:{len(queue)}"), index))
    turns = [
        list(_turns([sorted(takes[name]) for name in sorted(takes, key=_draw)])) for _, takes in sorted(queues.items())
    ]
    return [index for _, _, index in _turns(turns)][:wanted]


def _turns(queues: Sequence[Sequence[_Turn]]) -> Iterator[_Turn]:
    """The first of each queue, then the second of each, and so on."""
    for place in range(max(map(len, queues), default=0)):
        yield from (queue[place] for queue in queues if place < len(queue))


def _draw(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()
