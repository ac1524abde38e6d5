"""The parts of one computation shared among threads, in each of which torch computes with one thread.

Torch's own threads (OpenMP) share each single operation and wait for each other at its end, which for a block of a
stream means hundreds of times. Here they share parts that take milliseconds, and wait once per part.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from functools import cache
from threading import Barrier, Lock
from typing import TypeVar

import torch
from threadpoolctl import threadpool_limits

T = TypeVar("T")

_MAKING = Lock()


class _Here(threading.local):
    """What a thread knows of its crew."""

    threads = 1


_HERE = _Here()


def led(job: Callable[[], T]) -> T:
    """The result of ``job``. With several torch threads it runs in one of as many workers, and ``shared`` in all."""
    threads = torch.get_num_threads()
    if threads == 1:
        return job()
    return workers(threads).submit(_alike(job)).result()


def threads_here() -> int:
    """Threads that ``shared`` uses in the calling thread."""
    return _HERE.threads


def shared(jobs: Sequence[Callable[[], T]]) -> list[T]:
    """The results of all jobs, in order: at the same time within ``led``, else one after the other.

    The caller does its share, and what no worker has begun, so nobody waits for a worker that waits itself. Raises what
    the first job that failed has raised; none runs on after that.
    """
    if _HERE.threads == 1 or len(jobs) == 1:
        return [job() for job in jobs]
    pool = workers(_HERE.threads)
    futures: list[Future[T]] = [pool.submit(_alike(job)) for job in jobs[1:]]
    try:
        first = jobs[0]()
        done = {place: job() for place, job in enumerate(jobs[1:]) if futures[place].cancel()}
        return [first, *(done[place] if place in done else future.result() for place, future in enumerate(futures))]
    finally:
        wait([future for future in futures if not future.cancel()])


def _alike(job: Callable[[], T]) -> Callable[[], T]:
    """``job`` with gradients as in the calling thread: each thread has a setting of its own."""
    inference = torch.is_inference_mode_enabled()

    def run() -> T:
        with torch.inference_mode(inference):
            return job()

    return run


def workers(threads: int) -> ThreadPoolExecutor:
    """The workers of this process, made by the first thread that asks.

    While they are made, threads that begin to compute would find a number of 1, so decoders make them before any wave.
    """
    with _MAKING:
        return _pool(threads, os.getpid())


@cache
def _pool(threads: int, process: int) -> ThreadPoolExecutor:
    """Workers whose torch operations are single-threaded, shared by all of a process (a fork gets its own).

    The BLAS of numpy gets one thread from here on: a second one of OpenBLAS spins for some 30 ms after each product
    that it took part in, on a core that a worker needs. Products in numpy are small here.
    """
    started = Barrier(threads + 1)

    def begin() -> None:
        torch.get_num_threads()  # takes over the process's number, which would otherwise happen at the first operation
        torch.set_num_threads(1)
        _HERE.threads = threads
        started.wait()

    threadpool_limits(1, user_api="blas")
    pool = ThreadPoolExecutor(threads, f"crew-{process}", begin)
    usual = torch.get_num_threads()
    for _ in range(threads):
        pool.submit(int)
    started.wait()
    torch.set_num_threads(usual)  # a thread's own setting, but also what threads that start later inherit
    return pool
