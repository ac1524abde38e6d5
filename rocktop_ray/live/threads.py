"""Threads in a process that computes streams: those that compute, and others that must not be in their way.

Where there are few processors, two kinds of idle threads cost a stream as much as the computing itself:

- OpenBLAS, which numpy multiplies with, has threads of its own. One that took part in a product spins for some 30 ms
  after it, on a core that torch's threads need for the next stage. What live stages multiply in numpy (retrieval,
  resampling) is small, and gains nothing by a second thread.
- Each thread that has ever computed with several of torch's (OpenMP's) has a team of its own. GNU's OpenMP lets them
  spin for some milliseconds between operations, so that the next one finds them awake, but only while all teams of a
  process together have no more threads than the machine has processors. Else they sleep after every operation.

A hop of 240 ms of a stock voice on two cores takes 160 ms, and 250 beside the team of a thread that has loaded a model.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from threading import Thread

import torch
from threadpoolctl import ThreadpoolController

_SHARED = 1 << 18
"""Numbers from which on torch's threads surely share an operation."""


def limit_blas() -> None:
    """One thread for numpy's products from here on, in this process. A BLAS with OpenMP keeps its own: it may be
    torch's.
    """
    ThreadpoolController().select(threading_layer="pthreads").limit(limits=1)


def compute_here(threads: int) -> None:
    """Let the calling thread, which has not computed before, compute with ``threads`` of torch's. All that start after
    it get one.
    """
    torch.get_num_threads()  # takes over the process's number, which the first operation would do otherwise
    torch.set_num_threads(threads)
    torch.zeros(_SHARED).add_(1)  # its team starts now, with the priority that this thread has now
    _default(1)


@contextmanager
def without_team() -> Iterator[None]:
    """Compute with one thread in between, for a thread that only loads what another one will compute with."""
    usual = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(usual)


def _default(threads: int) -> None:
    """Set the number that threads to come take over. Torch sets the caller's with it, so another thread calls."""
    other = Thread(target=torch.set_num_threads, args=(threads,))
    other.start()
    other.join()
