"""Dynamic time warping (Sakoe and Chiba 1978): steps of one frame in either or both, all with weight 1.

Long takes are warped coarsely first, then finely near the coarse path (multiscale DTW, Müller, Mattes and Kurth 2006).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

_Matrix = npt.NDArray[np.float64]
Path = tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]
"""Indices of frames of the first and of the second, equally long."""

_FIRST, _SECOND = 1, 2
_EXACT = 36_000_000
"""Cells of the table up to which every path is tried: 60 s by 60 s at 100 frames/s."""
_COARSE = 10
"""Frames that are averaged for the coarse path."""
_RADIUS = 200
"""Frames to each side of the coarse path that the fine one may use."""


def warping_path(a: _Matrix, b: _Matrix) -> Path:
    """The cheapest alignment of ``a [n, d]`` and ``b [m, d]`` under Euclidean distance.

    Returns the indices into each, equally long, from ``(0, 0)`` to ``(n - 1, m - 1)``. Needs n * m bytes up to 36 MB;
    above, the path stays within 200 frames of the cheapest one between means of ten frames.
    """
    n, m = len(a), len(b)
    if n * m <= _EXACT:
        return _within(a, b, np.zeros(n + m - 1, np.intp), np.full(n + m - 1, n - 1))
    rows, columns = warping_path(_means(a), _means(b))
    rows, columns = np.append(rows * _COARSE, n - 1), np.append(columns * _COARSE, m - 1)
    sums, first = np.unique(rows + columns, return_index=True)
    centre = np.interp(np.arange(n + m - 1), sums, rows[first])
    return _within(a, b, np.floor(centre).astype(np.intp) - _RADIUS, np.ceil(centre).astype(np.intp) + _RADIUS)


def _means(frames: _Matrix) -> _Matrix:
    starts = np.arange(0, len(frames), _COARSE)
    return np.asarray(np.add.reduceat(frames, starts) / np.diff(np.append(starts, len(frames)))[:, None])


def _within(a: _Matrix, b: _Matrix, low: npt.NDArray[np.intp], high: npt.NDArray[np.intp]) -> Path:
    """The cheapest path whose row, on the anti-diagonal k, lies from ``low[k]`` to ``high[k]``."""
    n, m = len(a), len(b)
    # Cells of one anti-diagonal i + j = k depend only on the two before it; arrays are indexed by i + 1.
    before, last, current = (np.full(n + 1, np.inf) for _ in range(3))
    steps: list[tuple[int, npt.NDArray[np.uint8]]] = []
    for k in range(n + m - 1):
        start = max(0, k - m + 1, int(low[k]))
        i = np.arange(start, min(n, k + 1, int(high[k]) + 1))
        distance = np.sqrt(np.square(a[i] - b[k - i]).sum(axis=1))
        costs = np.stack([before[i], last[i], last[i + 1]])
        step = np.argmin(costs, axis=0)
        steps.append((start, step.astype(np.uint8)))
        current[i + 1] = distance + (0.0 if k == 0 else costs[step, np.arange(len(i))])
        before, last, current = last, current, before
        if k > 1:  # what the buffer of the next diagonal still holds from two diagonals ago
            past, old = steps[k - 2]
            current[past + 1 : past + 1 + len(old)] = np.inf
    row, column = n - 1, m - 1
    path = [(row, column)]
    while row or column:
        start, step = steps[row + column]
        back = _SECOND if row == 0 else _FIRST if column == 0 else int(step[row - start])
        row -= back != _SECOND
        column -= back != _FIRST
        path.append((row, column))
    rows, columns = np.array(path[::-1], np.intp).T
    return rows, columns
