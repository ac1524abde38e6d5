"""The smoothest likely path through pitch salience."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from rocktop_ray.protocols import Array

_REACH = 12
_TINY = float(np.finfo(np.float32).tiny)


def transition_logs(bins: int) -> npt.NDArray[np.float64]:
    """Log probability ``[bins, bins]`` of moving between classes: a triangle of 12 classes, as torchcrepe has it."""
    classes = np.arange(bins)
    chance = np.maximum(_REACH - np.abs(classes[:, None] - classes), 0.0)
    return np.log(chance / chance.sum(axis=1, keepdims=True) + _TINY)


def best_path(salience: Array, low: int, high: int) -> npt.NDArray[np.intp]:
    """Salience ``[frames, bins]`` -> the class of each frame ``[frames]``, within ``low .. high``.

    The frame's likelihood is the softmax of its salience, as in torchcrepe's default decoder.
    """
    allowed = salience[:, low:high].astype(np.float64)
    likelihood = np.exp(allowed)
    logs = np.log(likelihood / likelihood.sum(axis=1, keepdims=True) + _TINY)
    moves = np.ascontiguousarray(transition_logs(salience.shape[1])[low:high, low:high].T)
    frames, states = logs.shape
    came_from = np.empty((frames, states), np.int16)
    score = logs[0]
    rows = np.arange(states)
    for frame in range(1, frames):
        options = moves + score
        came_from[frame] = options.argmax(axis=1)
        score = options[rows, came_from[frame]] + logs[frame]
    path = np.empty(frames, np.intp)
    path[-1] = score.argmax()
    for frame in range(frames - 1, 0, -1):
        path[frame - 1] = came_from[frame, path[frame]]
    return path + low
