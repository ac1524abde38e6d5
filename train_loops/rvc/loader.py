"""Examples of the next steps, read and prepared while the step before is computed."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager

import torch

from rocktop_ray.config.training import LoaderConfig
from train_loops.dataset.reader import Dataset
from train_loops.rvc.batches import Batch, BatchPlan, PlannedBatch, collate, parts
from train_loops.rvc.examples import Preparation, Prepared, from_slice
from train_loops.rvc.recipe import Recipe

Share = Callable[[int], range]
"""Slots of a batch of so many examples that are this worker's."""
Loaded = tuple[PlannedBatch, list[Batch]]


class Loader:
    """A worker's part of each batch, on its device; the memory it takes does not depend on the dataset's size.

    Args:
        data: the examples that ``plan`` counts.
        plan: which of them come when.
        recipe: lengths, and in how many parts a worker computes its share.
        config: threads, and how far ahead.
        device: where the batches are wanted.
    """

    def __init__(
        self, data: Dataset, plan: BatchPlan, recipe: Recipe, config: LoaderConfig, device: torch.device | str = "cpu"
    ) -> None:
        self.data, self.plan, self.config = data, plan, config
        self.waited = 0.0
        """Seconds that steps waited for their examples so far."""
        self._device, self._accumulation = torch.device(device), recipe.accumulation
        self._preparation = Preparation(recipe)

    @contextmanager
    def walk(self, first: int, share: Share) -> Iterator[Iterator[Loaded]]:
        """All batches from a step on, without end; the threads end with the context.

        An iteration raises TrainingError or StorageError if an example cannot be used or read.
        """
        pool = ThreadPoolExecutor(self.config.threads, "loader")
        try:
            yield self._batches(pool, first, share)
        finally:
            pool.shutdown(wait=True, cancel_futures=True)

    def _batches(self, pool: ThreadPoolExecutor, first: int, share: Share) -> Iterator[Loaded]:
        coming: deque[tuple[PlannedBatch, range, list[Future[Prepared]]]] = deque()
        planned = self.plan.walk(first)
        while True:
            while len(coming) <= self.config.ahead:
                batch = next(planned)
                mine = share(len(batch.members))
                coming.append((batch, mine, [pool.submit(self._prepared, batch.members[slot]) for slot in mine]))
            batch, mine, futures = coming.popleft()
            start = time.perf_counter()
            examples = dict(zip(mine, (future.result() for future in futures), strict=True))
            self.waited += time.perf_counter() - start
            yield batch, [self._together(examples, piece) for piece in parts(mine, self._accumulation)]

    def _prepared(self, number: int) -> Prepared:
        return self._preparation.prepare(from_slice(self.data[number]))

    def _together(self, examples: dict[int, Prepared], piece: range) -> Batch:
        return collate([examples[slot] for slot in piece], piece).to(self._device)


def plan_for(data: Dataset, recipe: Recipe) -> BatchPlan:
    """The plan of a run over a dataset. Raises TrainingError if no slice is as long as a segment."""
    lengths = [min(int(frames), recipe.max_frames) for frames in data.frames]
    return BatchPlan(lengths, recipe.batch_size, seed=recipe.seed, shortest=recipe.segment_frames)
