"""Residual convolutions over few rows: one matrix product in place of many small ones.

A short block at a low rate has fewer rows than channels. Then reading the weights takes longer than multiplying them,
and ``short_conv``'s hold up to twice as many numbers as the filter itself.
"""

from __future__ import annotations

import torch
from torch import Tensor

from rocktop_ray.models.rvc.short_conv import SLOPE, RowConv, ShortConv, Workspace

_SHARE = 4


class FewRows:
    """A ``ShortConv`` that goes directly where that is faster: up to ``most`` rows at a time."""

    def __init__(self, conv: ShortConv) -> None:
        self.reach, self.slack = conv.reach, conv.slack
        self._conv, self._bias, self._dilation = conv, conv.bias, conv.dilation
        weight = conv.weight()
        self._taps, channels, _ = weight.shape
        self._weight = weight.flatten(0, 1)
        self.most = channels // _SHARE

    def __call__(self, x: Tensor, rows: int, out: Tensor, work: Workspace, residual: Tensor | None = None) -> None:
        """See ``RowConv``."""
        if rows > self.most:
            self._conv(x, rows, out, work, residual)
            return
        channels = x.shape[1]
        active = work.get("a", rows + 2 * self.reach, channels)
        torch._C._nn.leaky_relu(x[: len(active)], SLOPE, out=active)
        heard = work.get("b", rows, self._taps, channels)
        heard.copy_(active.as_strided(heard.shape, (channels, self._dilation * channels, 1)))
        made = torch.addmm(self._bias, heard.view(rows, -1), self._weight, out=out[:rows])
        if residual is not None:
            made.add_(residual[:rows])


def for_few_rows(conv: RowConv, rows: int) -> RowConv:
    """The convolution, with a second form of its weights if blocks of ``rows`` rows gain by it."""
    if isinstance(conv, ShortConv) and rows * _SHARE <= conv.channels:
        return FewRows(conv)
    return conv
