"""Arrays that came from another process."""

from __future__ import annotations

import numpy as np

from rocktop_ray.protocols import Array


def own(array: Array) -> Array:
    """``array``, or a copy of it if it may not be written to: Ray lends arrays from its store, read-only, and torch
    would write through that.
    """
    return array if array.flags.writeable else np.array(array)
