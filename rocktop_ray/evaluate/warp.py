"""Dynamic time warping (Sakoe and Chiba 1978): steps of one frame in either or both, all with weight 1."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

_BOTH, _FIRST, _SECOND = 0, 1, 2


def warping_path(
    a: npt.NDArray[np.float64], b: npt.NDArray[np.float64]
) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    """The cheapest alignment of ``a [n, d]`` and ``b [m, d]`` under Euclidean distance.

    Returns the indices into each, equally long, from ``(0, 0)`` to ``(n - 1, m - 1)``. Needs n * m bytes.
    """
    n, m = len(a), len(b)
    steps = np.empty((n, m), np.uint8)
    # Cells of one anti-diagonal i + j = k depend only on the two before it; arrays are indexed by i + 1.
    before = np.full(n + 1, np.inf)
    last = np.full(n + 1, np.inf)
    for k in range(n + m - 1):
        i = np.arange(max(0, k - m + 1), min(n, k + 1))
        distance = np.sqrt(np.square(a[i] - b[k - i]).sum(axis=1))
        costs = np.stack([before[i], last[i], last[i + 1]])
        step = np.argmin(costs, axis=0)
        steps[i, k - i] = step
        current = np.full(n + 1, np.inf)
        current[i + 1] = distance + (0.0 if k == 0 else costs[step, np.arange(len(i))])
        before, last = last, current
    row, column = n - 1, m - 1
    path = [(row, column)]
    while row or column:
        back = _SECOND if row == 0 else _FIRST if column == 0 else int(steps[row, column])
        row -= back != _SECOND
        column -= back != _FIRST
        path.append((row, column))
    rows, columns = np.array(path[::-1], np.intp).T
    return rows, columns
