"""Which examples go into which step, over any number of workers, and their tensors padded to one length.

A plan is a function of lengths, seed and epoch: any process can compute any step of it, so a run resumes at any step
and workers need no one to hand out work.
"""

from __future__ import annotations

import hashlib
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from rocktop_ray.errors import SettingsError, TrainingError
from train_loops.rvc.examples import Prepared
from train_loops.rvc.losses import Counts

BOUNDARIES = (50, *range(100, 1000, 100))
"""Upper ends, in frames, of the buckets from which batches are filled: batches of like lengths need little padding."""


@dataclass(frozen=True)
class PlannedBatch:
    """One step of a plan."""

    step: int
    """Counted from 0 over all epochs."""
    epoch: int
    index: int
    """Counted from 0 within the epoch."""
    members: tuple[int, ...]
    """Numbers of the examples; the place of an example here is its slot."""


class BatchPlan:
    """Batches of like lengths, in an order drawn anew for each epoch.

    In an epoch each example that is long enough comes exactly once. What a bucket leaves over is filled up from the
    next ones, so at most one batch of an epoch is smaller than the others.

    Args:
        lengths: frames of each example.
        batch_size: examples per step, over all workers.
        shortest: examples with fewer frames are left out; their numbers are in ``too_short``.

    Raises TrainingError if no example is long enough.
    """

    def __init__(self, lengths: Sequence[int], batch_size: int, *, seed: int, shortest: int = 1) -> None:
        self.lengths, self.batch_size, self.seed = tuple(int(length) for length in lengths), batch_size, seed
        self.too_short = tuple(number for number, length in enumerate(self.lengths) if length < shortest)
        buckets: dict[int, list[int]] = {}
        for number, length in enumerate(self.lengths):
            if length >= shortest:
                buckets.setdefault(bisect_left(BOUNDARIES, length), []).append(number)
        self._buckets = [np.array(buckets[key]) for key in sorted(buckets)]
        count = sum(map(len, self._buckets))
        if not count:
            raise TrainingError(f"none of the {len(self.lengths)} examples has {shortest} frames of 10 ms or more")
        self.batches_per_epoch = -(-count // batch_size)

    def epoch(self, number: int) -> list[PlannedBatch]:
        """All batches of an epoch, in order."""
        random = np.random.Generator(np.random.Philox(key=np.array([self.seed, number], np.uint64)))
        full: list[np.ndarray] = []
        rest = np.zeros(0, np.int64)
        for bucket in self._buckets:
            mixed = random.permutation(bucket)
            take = min(-len(rest) % self.batch_size, len(mixed)) if len(rest) else 0
            rest, mixed = np.concatenate([rest, mixed[:take]]), mixed[take:]
            if len(rest) == self.batch_size:
                full.append(rest)
                rest = rest[:0]
            whole = len(mixed) // self.batch_size * self.batch_size
            full += list(mixed[:whole].reshape(-1, self.batch_size))
            rest = np.concatenate([rest, mixed[whole:]])
        if len(rest):
            full.append(rest)
        order = random.permutation(len(full))
        first = number * self.batches_per_epoch
        return [
            PlannedBatch(first + index, number, index, tuple(int(member) for member in full[place]))
            for index, place in enumerate(order)
        ]

    def walk(self, step: int = 0) -> Iterator[PlannedBatch]:
        """All batches from a step on, epoch after epoch, without end."""
        epoch, index = divmod(step, self.batches_per_epoch)
        while True:
            yield from self.epoch(epoch)[index:]
            epoch, index = epoch + 1, 0

    def counts(self, batch: PlannedBatch) -> Counts:
        """What the losses of a whole batch are divided by, known to every worker beforehand."""
        return Counts(len(batch.members), sum(self.lengths[member] for member in batch.members))

    def fingerprint(self) -> str:
        """SHA-256 over everything that the plan depends on: a run can only be resumed exactly on the same."""
        text = f"{self.batch_size} {self.seed} {self.too_short} {self.lengths}"
        return hashlib.sha256(text.encode()).hexdigest()


def share(count: int, shares: Sequence[float]) -> list[range]:
    """Slots of a batch of ``count`` examples for each worker, in proportion to ``shares`` (speeds, any unit).

    Contiguous, each slot exactly once, the numbers off by less than one from the exact proportion; a slow worker may
    get none. Raises SettingsError if a share is negative or all are 0.
    """
    wanted = np.asarray(shares, np.float64)
    if not wanted.size or not np.isfinite(wanted).all() or (wanted < 0).any() or not wanted.sum():
        raise SettingsError(f"shares must be positive numbers, not {list(shares)}", stage="training")
    exact = wanted / wanted.sum() * count
    sizes = np.floor(exact).astype(int)
    largest = np.argsort(-(exact - sizes), kind="stable")
    sizes[largest[: count - sizes.sum()]] += 1
    ends = [int(end) for end in sizes.cumsum()]
    return [range(end - int(size), end) for end, size in zip(ends, sizes, strict=True)]


def parts(slots: range, count: int) -> list[range]:
    """The slots of a worker in at most ``count`` parts of like size, none empty: for gradient accumulation."""
    pieces = share(len(slots), [1.0] * min(count, len(slots))) if len(slots) else []
    return [slots[piece.start : piece.stop] for piece in pieces]


@dataclass(frozen=True, eq=False)
class Batch:
    """Examples padded with zeros to the longest; ``T`` frames."""

    units: Tensor
    """``[batch, T, dim]``"""
    spectrogram: Tensor
    """``[batch, bins, T]``"""
    wave: Tensor
    """``[batch, T * hop]``"""
    f0: Tensor | None
    """``[batch, T]`` Hz; None for a voice without F0."""
    pitch: Tensor | None
    """``[batch, T]`` coarse pitch."""
    speaker: Tensor
    """``[batch]``"""
    mask: Tensor
    """``[batch, 1, T]`` float32, 1 where a frame counts."""
    lengths: tuple[int, ...]
    """Frames of each example."""
    slots: tuple[int, ...]
    """Place of each example in the whole batch: its random draws depend on it."""

    @property
    def counts(self) -> Counts:
        """What the losses of this batch by itself are divided by."""
        return Counts(len(self.lengths), sum(self.lengths))

    def to(self, device: torch.device | str) -> Batch:
        """The same on a device."""
        moved = {name: value.to(device) for name, value in vars(self).items() if isinstance(value, Tensor)}
        return Batch(**{**vars(self), **moved})


def collate(examples: Sequence[Prepared], slots: Sequence[int]) -> Batch:
    """Pad examples to the longest of them. ``slots``: their places in the whole batch."""
    longest = max(example.frames for example in examples)

    def padded(tensors: Sequence[Tensor], axis: int, length: int) -> Tensor:
        shape = list(tensors[0].shape)
        shape[axis] = length
        result = tensors[0].new_zeros(len(tensors), *shape)
        for row, tensor in zip(result, tensors, strict=True):
            row.narrow(axis, 0, tensor.shape[axis]).copy_(tensor)
        return result

    hop = len(examples[0].wave) // examples[0].frames
    melodies = [example.f0 for example in examples if example.f0 is not None]
    pitches = [example.pitch for example in examples if example.pitch is not None]
    lengths = tuple(example.frames for example in examples)
    mask = torch.arange(longest)[None] < torch.tensor(lengths)[:, None]
    return Batch(
        units=padded([example.units for example in examples], 0, longest),
        spectrogram=padded([example.spectrogram for example in examples], 1, longest),
        wave=padded([example.wave for example in examples], 0, longest * hop),
        f0=padded(melodies, 0, longest) if melodies else None,
        pitch=padded(pitches, 0, longest) if pitches else None,
        speaker=torch.tensor([example.speaker for example in examples]),
        mask=mask[:, None].float(),
        lengths=lengths,
        slots=tuple(slots),
    )
