"""Add up gradients over all workers: what makes unequal workers one.

Every worker computes gradients of SUMS over its own examples. Their sum over the workers, divided by the count of the
whole batch, is the gradient of one worker with all examples, whatever the shares. (Averaging means, as is common, is
right for equal shares only.) Gradients travel as flat float32 buffers of bounded size, in the order of the weights.

Before each exchange the workers meet: they compare what they are about to add up, and learn who is gone or failed. So
one that leaves the common order is an error with its name, and not a sum of unlike things or a wait without end.
"""

from __future__ import annotations

import time
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from rocktop_ray.errors import TrainingError, WorkerLostError
from train_loops.exchange.groups import Groups, lost

BUCKET_BYTES = 32 << 20
_REASON_BYTES = 512


@dataclass(frozen=True)
class _Notice:
    """What a worker says when the workers meet, as numbers that float64 holds exactly."""

    number: int
    """Of the exchange, counted from 0."""
    part: int
    """Checksum of the network's name."""
    layout: int
    """Checksum of the sizes of its weights."""
    count: float = 0.0
    failed: bool = False


class Exchange:
    """Adds up gradients; fits ``train_loops.rvc.step.Exchange``.

    All workers must call the same methods for the same parts in the same order, e.g. always the discriminator, then
    the generator.

    Args:
        groups: from ``groups.join``.
        bucket_bytes: bound on each of the buffers; there is one, and one more in host memory on a leader with a GPU.
    """

    def __init__(self, groups: Groups, *, bucket_bytes: int = BUCKET_BYTES) -> None:
        self.groups = groups
        self.seconds = 0.0
        """Spent here so far, waiting for others included: what is left of a step is this worker's own speed."""
        self._size = max(1, bucket_bytes // 4)
        self._buffer = torch.empty(0)
        self._host: Tensor | None = None
        self._number = 0

    def __call__(self, part: str, weights: Sequence[nn.Parameter]) -> None:
        """Replace each ``weight.grad`` by its sum over all workers.

        For losses that were already divided by the counts of the whole batch. Raises as ``average``.
        """
        self._exchange(part, weights, None)

    def average(self, part: str, weights: Sequence[nn.Parameter], count: float) -> bool:
        """Replace each ``weight.grad``, of a sum over ``count`` frames here, by the mean over all workers' frames.

        Gradients that are None here but not everywhere count as 0; those that no worker has stay None. A worker with
        nothing to do gives ``count`` 0.

        Returns whether all results are finite. Every worker gets the same answer, and so leaves the step out, or lowers
        its scale of fp16, as all do.

        Raises TrainingError if the workers are not about to add up the same, or if all counts are
        0; WorkerLostError if one is gone or failed (``guard``).
        """
        return bool(self._exchange(part, weights, count))

    @contextmanager
    def guard(self) -> Iterator[None]:
        """Put the training loop in it: an error of this worker's own is told to the others at their next exchange.

        They raise a WorkerLostError with its text. After any error the groups are closed, so that others that wait for
        this worker do not wait for its process to end.
        """
        try:
            yield
        except WorkerLostError:
            self.groups.close()
            raise
        except Exception as error:
            self._leave(f"{type(error).__name__}: {error}")
            self.groups.close()
            raise

    # --- inside -------------------------------------------------------------------------------------------------------

    def _exchange(self, part: str, weights: Sequence[nn.Parameter], count: float | None) -> Tensor:
        if self.groups.device.type == "cuda":
            torch.cuda.synchronize(self.groups.device)  # else the wait for own work would count as one for others
        start = time.perf_counter()
        sizes = ",".join(str(tuple(weight.shape)) for weight in weights)
        notice = _Notice(self._number, _checksum(part), _checksum(sizes), 0.0 if count is None else float(count))
        doing = f"adding up the {part}'s gradients (exchange {self._number})"
        total = self._meet(notice, doing, "")
        if count is not None and not total > 0:
            raise TrainingError(f"no worker has any frames for the {part}: the batch is empty")
        self._number += 1
        with lost(self.groups, doing):
            finite = self._sum(weights, 1.0 if count is None else total)
        self.seconds += time.perf_counter() - start
        return finite

    def _sum(self, weights: Sequence[nn.Parameter], divisor: float) -> Tensor:
        """All gradients through the buffer, piece by piece; the last piece tells which weights have one somewhere."""
        groups = self.groups
        if not self._buffer.numel():
            self._buffer = torch.empty(self._size, device=groups.staging)
            self._host = groups.host_buffer(self._size)
        present = torch.tensor([float(weight.grad is not None) for weight in weights], device=groups.staging)
        for chunk in present.split(self._size):
            groups.add_up(chunk, self._host)
        used = [weight for weight, there in zip(weights, present.tolist(), strict=True) if there]
        for weight in used:
            if weight.grad is None:
                weight.grad = torch.zeros_like(weight)
            elif weight.grad.is_sparse:
                raise TrainingError("sparse gradients cannot be exchanged: use dense embeddings")
        finite = torch.ones((), dtype=torch.bool, device=groups.staging)
        for pieces in _buckets(used, self._size):
            filled = self._buffer[: sum(stop - start for _, start, stop in pieces)]
            places = filled.split([stop - start for _, start, stop in pieces])
            for place, (gradient, start, stop) in zip(places, pieces, strict=True):
                place.copy_(gradient.reshape(-1)[start:stop])
            groups.add_up(filled, self._host)
            if divisor != 1:
                filled.div_(divisor)
            finite &= filled.isfinite().all()
            for place, (gradient, start, stop) in zip(places, pieces, strict=True):
                _write(gradient, place, start, stop)
        return finite

    def _leave(self, reason: str) -> None:
        try:
            self._meet(_Notice(self._number, 0, 0, failed=True), f"leaving ({reason})", reason)
        except WorkerLostError:  # that is what a meeting ends with if anybody failed, or has gone already
            return

    def _meet(self, notice: _Notice, doing: str, reason: str) -> float:
        """Compare notices; returns the total count."""
        groups = self.groups
        mine = torch.tensor(
            [notice.number, notice.part, notice.layout, notice.count, notice.failed], dtype=torch.float64
        )
        with lost(groups, doing):
            notices = [_Notice(int(n[0]), int(n[1]), int(n[2]), float(n[3]), bool(n[4])) for n in groups.gather(mine)]
            failed = [rank for rank, each in enumerate(notices) if each.failed]
            reasons = [_text(each) for each in groups.gather(_bytes(reason))] if failed else []
        if failed:
            first = failed[0]
            raise WorkerLostError(f"{groups.layout.workers[first]} failed: {reasons[first] or 'no reason given'}")
        for rank, each in enumerate(notices):
            if (each.number, each.part) != (notices[0].number, notices[0].part):
                raise TrainingError(
                    f"{groups.layout.workers[rank]} and worker 0 are not at the same exchange "
                    f"({each.number} and {notices[0].number}): all must exchange the same networks in the same order"
                )
            if each.layout != notices[0].layout:
                raise TrainingError(
                    f"{groups.layout.workers[rank]} and worker 0 have other weights: start all with the same recipe "
                    "and the same version of this program"
                )
        return sum(each.count for each in notices)


def _buckets(weights: Sequence[nn.Parameter], size: int) -> Iterator[list[tuple[Tensor, int, int]]]:
    """Pieces ``(gradient, start, stop)`` of the flattened gradients in order, up to ``size`` values at a time."""
    bucket: list[tuple[Tensor, int, int]] = []
    room = size
    for weight in weights:
        gradient, start = weight.grad, 0
        assert gradient is not None
        while start < gradient.numel():
            stop = min(gradient.numel(), start + room)
            bucket.append((gradient, start, stop))
            room -= stop - start
            start = stop
            if not room:
                yield bucket
                bucket, room = [], size
    if bucket:
        yield bucket


def _write(gradient: Tensor, values: Tensor, start: int, stop: int) -> None:
    """Put ``values`` into the flattened gradient, in place, whatever its memory layout."""
    if gradient.is_contiguous():
        gradient.view(-1)[start:stop].copy_(values)
        return
    flat = gradient.reshape(-1).clone()
    flat[start:stop].copy_(values)
    gradient.copy_(flat.view(gradient.shape))


def _checksum(text: str) -> int:
    return zlib.crc32(text.encode())


def _bytes(text: str) -> Tensor:
    raw = text.encode()[:_REASON_BYTES].ljust(_REASON_BYTES, b"\0")
    return torch.tensor(list(raw), dtype=torch.uint8)


def _text(values: Tensor) -> str:
    return bytes(values.tolist()).rstrip(b"\0").decode(errors="replace")
