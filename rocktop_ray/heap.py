"""Memory while models load: a file's tensors and the network's take turns, which would leave the heap full of holes.

And memory while they train: the same tensors over and over, whose pages are worth keeping.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Iterator
from contextlib import contextmanager

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_MMAP_MAX = -1, -3, -4
_LARGEST = 32 << 20
"""The mapping threshold that glibc reaches by itself in use; larger blocks are always mapped."""


@contextmanager
def loading() -> Iterator[None]:
    """Tensors made inside get pages of their own, so that those freed go back to the system (up to 1 GB for a voice,
    HuBERT and RMVPE). Only glibc needs this; elsewhere nothing happens.
    """
    libc = _glibc()
    if libc is None:
        yield
        return
    libc.mallopt(_M_MMAP_THRESHOLD, 256 << 10)
    try:
        yield
    finally:
        libc.mallopt(_M_MMAP_THRESHOLD, _LARGEST)
        libc.mallopt(_M_TRIM_THRESHOLD, 2 * _LARGEST)
        libc.malloc_trim(0)


def keep_pages() -> None:
    """From now on large blocks that are freed stay with the process, for the next ones of their size.

    glibc maps blocks of more than 32 MB anew each time, and the kernel clears their pages: a fifth of a training step's
    time on a processor. What the process holds is then its highest use. Only glibc needs this.
    """
    libc = _glibc()
    if libc is not None:
        libc.mallopt(_M_MMAP_MAX, 0)
        libc.mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)


def _glibc() -> ctypes.CDLL | None:
    libc = ctypes.CDLL(None) if sys.platform == "linux" else None
    return libc if hasattr(libc, "malloc_trim") else None
