"""Workers as processes of one machine, over gloo on the loopback: to try a mixed run out, and to test it.

On a cluster Ray Train starts the workers; nothing else in this package knows how they were started.
"""

from __future__ import annotations

import multiprocessing
import os
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from rocktop_ray.errors import RocktopError, TrainingError


@dataclass(frozen=True)
class Outcome:
    """How a worker ended."""

    value: Any
    """What its function returned; None if it did not."""
    error: Exception | None
    """What it raised."""
    exit_code: int
    """0; below 0 the signal that ended it."""
    seconds: float
    """From the start of all to its end."""


def run_workers(
    function: Callable[..., Any],
    count: int,
    *arguments: Any,
    seconds: float = 60,
    preload: Sequence[str] = (),
) -> list[Outcome]:
    """Run ``function(rank, *arguments)`` in ``count`` processes with ``torch.distributed`` between them.

    The function must be importable and its values picklable. Processes are forked from a fresh server that has imported
    torch (and ``preload``) once. No port is chosen: they find each other through a file. Each uses one thread. Those
    that run longer than ``seconds`` are killed.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__, *preload])
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="ranks") as folder:
        meeting = Path(folder) / "meeting"
        pairs = [context.Pipe(duplex=False) for _ in range(count)]
        processes = [
            context.Process(target=_work, args=(end, meeting, rank, count, function, arguments), daemon=True)
            for rank, (_, end) in enumerate(pairs)
        ]
        try:
            for process in processes:
                process.start()
            for _, end in pairs:
                end.close()
            return _collect(processes, [near for near, _ in pairs], started, seconds)
        finally:
            for process in processes:
                if process.is_alive():
                    process.kill()
                process.join()


def _collect(processes: list[Any], near: list[Connection], started: float, seconds: float) -> list[Outcome]:
    """Wait for every worker's answer and end."""
    answers: dict[int, tuple[Any, Exception | None]] = {}
    ended: dict[int, float] = {}
    ranks: dict[object, int] = {process.sentinel: rank for rank, process in enumerate(processes)}
    while len(ended) < len(processes):
        left = started + seconds - time.monotonic()
        if left <= 0:
            break
        waiting = {near[rank]: rank for rank in range(len(near)) if rank not in answers}
        alive = [process.sentinel for rank, process in enumerate(processes) if rank not in ended]
        for ready in wait([*waiting, *alive], timeout=left):
            if isinstance(ready, Connection):
                rank = waiting[ready]
                try:
                    answers[rank] = ready.recv()
                except EOFError:  # ended without an answer
                    answers[rank] = (None, None)
            else:
                ended[ranks[ready]] = time.monotonic() - started
    outcomes = []
    for rank, process in enumerate(processes):
        if rank not in ended:
            process.kill()
        process.join()
        value, error = answers.get(rank, (None, None))
        if rank not in ended:
            error = TrainingError(f"worker {rank} still ran after {seconds:g} seconds and was ended")
        outcomes.append(Outcome(value, error, int(process.exitcode or 0), ended.get(rank, seconds)))
    return outcomes


def _work(
    end: Connection, meeting: Path, rank: int, count: int, function: Callable[..., Any], arguments: tuple[Any, ...]
) -> None:
    """The body of a worker's process."""
    torch.set_num_threads(1)
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    try:
        dist.init_process_group(
            "gloo", init_method=meeting.as_uri(), rank=rank, world_size=count, timeout=timedelta(seconds=60)
        )
        end.send((function(rank, *arguments), None))
    except RocktopError as error:
        end.send((None, error))
    except Exception as error:  # noqa: BLE001  (told to the parent, whatever it is)
        end.send((None, TrainingError(f"worker {rank}: {type(error).__name__}: {error}")))
    finally:
        end.close()
        if dist.is_initialized():
            dist.destroy_process_group()
