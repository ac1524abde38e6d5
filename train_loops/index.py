"""``python -m train_loops.index``: a dataset's content units as the retrieval index of a voice.

Works alone and as a job (``ray job submit ... -- python -m train_loops.index ...``): the work is one Ray task that
keeps the cores asked for, or with ``--local`` this process.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated

import numpy as np
import numpy.typing as npt
import typer

from actors.threads import use_threads
from rocktop_ray.errors import SettingsError, TrainingError
from rocktop_ray.features.index import RetrievalIndex
from rocktop_ray.protocols import Array
from rocktop_ray.store.settings import StorageSettings
from rocktop_ray.store.storage import Storage, open_storage
from train_loops.cluster import check_lasting, joined_ray, log_lines, plain_errors, run_program
from train_loops.dataset.reader import Dataset

MAX_VECTORS = 200_000
"""Units above which RVC puts k-means centres in their place: some 67 minutes of audio."""
SAMPLE = 2
"""The centres are found from at most this many times ``max_vectors`` units, so that memory is bounded."""
_PROGRESS_SECONDS = 10.0
_log = logging.getLogger(__name__)
app = typer.Typer(add_completion=False)


@dataclass(frozen=True)
class _Stretch:
    """The units of a slice that no slice before it has."""

    slice: int
    skip: int
    """Units at its begin that an earlier slice of the take holds too."""
    count: int


def build_index(
    dataset: Dataset, *, speaker: str | None = None, max_vectors: int = MAX_VECTORS, seed: int = 0
) -> RetrievalIndex:
    """The index of a dataset's units, the way RVC makes it (``RetrievalIndex.build``).

    Slices that overlap share moments of a recording: each moment counts once. Up to ``max_vectors`` units are kept as
    they are. Above it, 10,000 k-means centres take their place, found from a random sample of ``2 * max_vectors``, so
    that memory does not grow with the dataset: some 12 kB for each of ``max_vectors`` units of 768 numbers. The same
    dataset, seed and number of threads give the same index.

    Args:
        dataset: only its units are read.
        speaker: name of the one whose slices count; None = all.
        max_vectors: 1 or more.
        seed: of the sample, the order and the centres.

    Raises SettingsError (an unknown speaker, a number out of range), TrainingError (nothing to index, a damaged
    dataset), StorageError.
    """
    if max_vectors < 1 or seed < 0:
        raise SettingsError("max_vectors must be 1 or more, and the seed not negative", stage="training")
    if speaker is not None:
        dataset = dataset.of_speaker(speaker)
    stretches = list(_stretches(dataset))
    total = sum(stretch.count for stretch in stretches)
    if not total:
        raise TrainingError("the dataset has no content units to index")
    vectors = _read(dataset, stretches, _chosen(total, SAMPLE * max_vectors, seed))
    began = time.monotonic()
    _log.info("index: grouping %d of %d units", len(vectors), total)
    index = RetrievalIndex.build(vectors, seed=seed, max_vectors=max_vectors)
    _log.info("index: %d vectors in %.1f s", index.count, time.monotonic() - began)
    return index


def _stretches(dataset: Dataset) -> Iterator[_Stretch]:
    """Slices are in order of takes and time, on the grid of units (``dataset.slices``)."""
    grid = dataset.manifest.config.rate // 50
    take, covered = "", 0
    for number, (key, start, frames) in enumerate(zip(dataset.takes, dataset.starts, dataset.frames, strict=True)):
        first, count = int(start) // grid, int(frames) // 2
        if key != take:
            take, covered = key, 0
        skip = min(max(covered - first, 0), count)
        covered = max(covered, first + count)
        yield _Stretch(number, skip, count - skip)


def _chosen(total: int, most: int, seed: int) -> npt.NDArray[np.bool_] | None:
    """Which of ``total`` units are read: ``most`` of them by chance; None = all."""
    if total <= most:
        return None
    chosen = np.zeros(total, bool)
    chosen[np.random.default_rng(seed).choice(total, most, replace=False, shuffle=False)] = True
    return chosen


def _read(dataset: Dataset, stretches: list[_Stretch], chosen: npt.NDArray[np.bool_] | None) -> Array:
    """The chosen units ``[count, dim]``, slice after slice."""
    total = sum(stretch.count for stretch in stretches)
    vectors = np.empty((total if chosen is None else int(chosen.sum()), dataset.manifest.networks.dim), np.float32)
    seen = filled = 0
    said = time.monotonic()
    for number, stretch in enumerate(stretches):
        mask = None if chosen is None else chosen[seen : seen + stretch.count]
        if stretch.count and (mask is None or mask.any()):
            units = dataset.units(stretch.slice)[stretch.skip :]
            units = units if mask is None else units[mask]
            vectors[filled : filled + len(units)] = units
            filled += len(units)
        seen += stretch.count
        if time.monotonic() - said >= _PROGRESS_SECONDS:
            said = time.monotonic()
            _log.info("index: read %d of %d slices (%.0f %%)", number + 1, len(stretches), 100 * seen / total)
    return vectors


# --- the job ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Order:
    """What a worker is to do; can be pickled."""

    dataset: str
    speaker: str | None
    folder: Storage
    key: str
    max_vectors: int
    seed: int
    threads: int
    reach: StorageSettings

    def __call__(self) -> str:
        """Builds and writes the index; returns a line about it."""
        import faiss  # noqa: F401
        import sklearn.cluster  # noqa: F401
        from threadpoolctl import threadpool_limits

        use_threads(self.threads)
        threadpool_limits(self.threads)  # of the libraries that are loaded
        dataset = Dataset.open(self.dataset, self.reach, held_out=0)
        index = build_index(dataset, speaker=self.speaker, max_vectors=self.max_vectors, seed=self.seed)
        self.folder.write(self.key, index.to_bytes())
        lists = len(index.arrays.sizes)
        return f"{index.count} vectors of {index.dim} numbers in {lists} {'list' if lists == 1 else 'lists'}"


@app.command()
def index(
    dataset: Annotated[str, typer.Argument(help="Folder or s3://bucket/prefix that train_loops.preprocess made.")],
    out: Annotated[str, typer.Option(help="File or s3://bucket/key of the index; its name ends in .index.")],
    speaker: Annotated[str | None, typer.Option(help="Only this one's units; else all speakers'.")] = None,
    max_vectors: Annotated[
        int, typer.Option(min=1, help="With more units than this, 10000 k-means centres take their place.")
    ] = MAX_VECTORS,
    seed: Annotated[int, typer.Option(min=0, help="Of sample, order and centres.")] = 0,
    threads: Annotated[int, typer.Option(min=1, help="Of the arithmetic; the job takes as many cores.")] = 1,
    local: Annotated[bool, typer.Option("--local", help="In this process, without Ray.")] = False,
) -> None:
    """Make the retrieval index of a dataset, as RVC and Applio read it."""
    check_lasting(out)
    reach = StorageSettings.from_environment()
    folder, key = _place(out, reach)
    place = open_storage(dataset, reach).url  # absolute: a worker may stand in another folder
    order = _Order(place, speaker, folder, key, max_vectors, seed, threads, reach)
    made = order() if local else _in_ray(order)
    typer.echo(f"{made}: {out}")


def _place(out: str, reach: StorageSettings) -> tuple[Storage, str]:
    """The store and the name in it. Raises SettingsError."""
    folder, slash, name = out.rpartition("/")
    if not name.endswith(".index") or name == ".index" or folder in ("s3:/", "file:/"):
        raise SettingsError(f"--out wants a file whose name ends in .index, not {out[:80]!r}", stage="training")
    return open_storage(folder if folder else slash or ".", reach), name


def _in_ray(order: _Order) -> str:
    def work() -> str:
        log_lines()
        return order()

    with joined_ray(order.threads):
        import ray

        task = ray.remote(num_cpus=order.threads, max_calls=1)(work)
        with plain_errors():
            made: str = ray.get(task.remote())
    return made


def main() -> None:
    """The program."""
    run_program(app)


if __name__ == "__main__":
    main()
