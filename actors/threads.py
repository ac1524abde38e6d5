"""How many cores the arithmetic of one process may use, said to every library that would otherwise take them all."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from threadpoolctl import threadpool_limits

_QUOTA = Path("/sys/fs/cgroup/cpu.max")


def cores() -> int:
    """Cores that this process may use: its affinity, and the quota of its container."""
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    with contextlib.suppress(OSError, ValueError):
        quota, period = _QUOTA.read_text().split()
        usable = min(usable, max(1, round(int(quota) / int(period))))
    return usable


def share(replicas: int) -> int:
    """Threads for each of ``replicas`` processes that compute on this machine."""
    return max(1, cores() // max(1, replicas))


def use_threads(count: int) -> None:
    """Let torch and the BLAS of numpy use ``count`` threads in this process, from its threads on.

    To be called once, before the process computes anything. Torch gets one thread between operations: a second one
    would only compete with the first.
    """
    import torch  # here, as some only ask for the cores

    with contextlib.suppress(RuntimeError):  # it can be said once per process, which tests do not keep to
        torch.set_num_interop_threads(1)
    use_threads_here(count)
    threadpool_limits(count, user_api="blas")


def use_threads_here(count: int) -> None:
    """The same for torch in the calling thread, which must not have computed before.

    The number is a setting of each thread, taken over from the process at its first operation: if that comes after
    ``set_num_threads``, it undoes it. Asking for the number first takes it over.
    """
    import torch

    torch.get_num_threads()
    torch.set_num_threads(count)
