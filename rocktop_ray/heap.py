"""Memory while models load: a file's tensors and the network's take turns, which would leave the heap full of holes."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Iterator
from contextlib import contextmanager

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_LARGEST = 32 << 20
"""The mapping threshold that glibc reaches by itself in use; larger blocks are always mapped."""


@contextmanager
def loading() -> Iterator[None]:
    """Tensors made inside get pages of their own, so that those freed go back to the system (up to 1 GB for a voice,
    HuBERT and RMVPE). Only glibc needs this; elsewhere nothing happens.
    """
    libc = ctypes.CDLL(None) if sys.platform == "linux" else None
    if libc is None or not hasattr(libc, "malloc_trim"):
        yield
        return
    libc.mallopt(_M_MMAP_THRESHOLD, 256 << 10)
    try:
        yield
    finally:
        libc.mallopt(_M_MMAP_THRESHOLD, _LARGEST)
        libc.mallopt(_M_TRIM_THRESHOLD, 2 * _LARGEST)
        libc.malloc_trim(0)
