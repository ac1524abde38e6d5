"""Convolutions over rows ``[rows, channels]`` with fewer multiplications: Toom-Cook (Lavin and Gray 2016).

A tile of ``m`` outputs of an ``r``-tap filter needs ``n = m + r - 1`` products instead of ``m * r``: as polynomials,
inputs and filters are evaluated at ``n`` points, multiplied there, and the result is interpolated. With channels each
product is a matrix product, where processors are fastest. Longer filters are cut into groups of ``m`` taps that are
summed before the interpolation. Points are few and small: the rounding error is about three times a direct sum's.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction
from functools import cache
from typing import NamedTuple, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

SLOPE = 0.1
"""Of the leaky rectifier in front of each convolution."""
OUTPUTS = 4
"""``m``, outputs per tile."""
_POINTS = (Fraction(0), Fraction(1), Fraction(-1), Fraction(1, 2), Fraction(-1, 2), Fraction(2), Fraction(-2))
_ONE = _POINTS.index(Fraction(1))
_MIN_CHANNELS = 32
_MOST_VIEWS = 1000
"""Convolutions whose views a workspace remembers."""


class Workspace:
    """Named scratch buffers of one thread: reused, so that they stay in its cache."""

    def __init__(self) -> None:
        self._buffers: dict[str, Tensor] = {}
        self._views: dict[tuple[object, int], _Views] = {}

    def get(self, name: str, *shape: int) -> Tensor:
        """A float32 tensor with whatever values it held before."""
        size = math.prod(shape)
        buffer = self._buffers.get(name)
        if buffer is None or buffer.numel() < size:
            buffer = self._buffers[name] = torch.empty(size)
            self._views.clear()
        return buffer[:size].view(shape)

    def views(self, conv: ShortConv, rows: int) -> _Views:
        """How a convolution over ``rows`` rows uses the buffers, remembered: making them anew takes about as long as
        a small product.
        """
        found = self._views.get((conv, rows))
        if found is None:
            found = conv.views(rows, self)
            if len(self._views) >= _MOST_VIEWS:
                self._views.clear()
            self._views[conv, rows] = found
        return found


class _Views(NamedTuple):
    """The buffers of one convolution by Toom-Cook tiles, as its operations want them."""

    covered: int
    strides: tuple[tuple[int, ...], tuple[int, ...]]
    tiles: tuple[int, int, int]
    cut: Tensor
    flat: Tensor
    values: Tensor
    groups: list[Tensor]
    products: Tensor
    one: Tensor
    points: Tensor
    sums: Tensor
    ordered: Tensor


class RowConv(Protocol):
    """``conv(leaky_relu(x)) + bias`` over rows, without padding."""

    reach: int
    """Input rows before, and after, an output row that it depends on."""
    slack: int
    """Rows that follow those of input, output and residual: read, if finite without influence, and overwritten."""

    def __call__(self, x: Tensor, rows: int, out: Tensor, work: Workspace, residual: Tensor | None = None) -> None:
        """Rows ``0 .. rows + 2 * reach`` of ``x`` -> rows ``0 .. rows`` of ``out``, plus those of ``residual``."""
        ...


def row_conv(weight: Tensor, bias: Tensor, dilation: int) -> RowConv:
    """The faster kind for a filter ``[channels, channels, taps]`` with odd taps."""
    if weight.shape[2] > 1 and weight.shape[0] >= _MIN_CHANNELS:
        return ShortConv(weight, bias, dilation)
    return DirectConv(weight, bias, dilation)


class ShortConv:
    """By Toom-Cook tiles. A tile's rows are ``dilation`` apart, so a dilated convolution costs the same."""

    def __init__(self, weight: Tensor, bias: Tensor, dilation: int) -> None:
        taps = weight.shape[2]
        size = min(taps, OUTPUTS)
        self.dilation = dilation
        self.reach = (taps - 1) * dilation // 2
        self.groups = -(-taps // size)
        outputs, filters, inputs = matrices(size)
        self.points = len(inputs)
        step = OUTPUTS * dilation
        used = (self.points - 1) * dilation + step * self.groups  # rows that one tile's outputs read
        self.slack = max(step, used - (taps - 1) * dilation)
        self._outputs, self._inputs = outputs.float(), inputs.float()
        grouped = F.pad(weight.double(), (0, self.groups * size - taps)).unflatten(2, (self.groups, size))
        self._filters = torch.einsum("pj,oigj->gpio", filters, grouped).float().contiguous()
        self._filter_groups = list(self._filters)
        self._taps = taps
        self.channels = weight.shape[0]
        self.bias = bias.clone()

    def weight(self) -> Tensor:
        """The filter again, ``[taps, inputs, outputs]``, to float32's precision."""
        _, filters, _ = matrices(min(self._taps, OUTPUTS))
        grouped = torch.einsum("jp,gpio->gjio", torch.linalg.pinv(filters), self._filters.double())
        return grouped.flatten(0, 1)[: self._taps].float().contiguous()

    def views(self, rows: int, work: Workspace) -> _Views:
        """See ``Workspace.views``."""
        gap, channels = self.dilation, self.channels
        wide = gap * channels
        tiles = -(-rows // (OUTPUTS * gap))
        inner = tiles + self.groups - 1
        # Both at their largest, before any view of them.
        work.get("a", self.points * max(inner, tiles) * wide)
        work.get("b", max(self.points * inner, OUTPUTS * tiles) * wide)
        cut = work.get("a", self.points, inner, wide)
        values = work.get("b", self.points, inner * wide)
        apart = values.view(self.points, inner * gap, channels)
        products = work.get("a", self.points, tiles * gap, channels)
        sums = work.get("b", OUTPUTS, tiles * wide)
        return _Views(
            tiles * OUTPUTS * gap,
            ((self.points, inner, wide), (wide, OUTPUTS * wide, 1)),
            (tiles, OUTPUTS, wide),
            cut,
            cut.flatten(1),
            values,
            [apart[:, group * gap : (group + tiles) * gap] for group in range(self.groups)],
            products,
            products[_ONE],
            products.view(self.points, -1),
            sums,
            sums.view(OUTPUTS, tiles, wide).transpose(0, 1),
        )

    def __call__(self, x: Tensor, rows: int, out: Tensor, work: Workspace, residual: Tensor | None = None) -> None:
        """See ``RowConv``."""
        v = work.views(self, rows)
        torch._C._nn.leaky_relu(x.as_strided(*v.strides), SLOPE, out=v.cut)
        torch.mm(self._inputs, v.flat, out=v.values)
        torch.bmm(v.groups[0], self._filter_groups[0], out=v.products)
        for group in range(1, self.groups):
            v.products.baddbmm_(v.groups[group], self._filter_groups[group])
        v.one.add_(self.bias)  # at the point 1 a value counts once in every output
        torch.mm(self._outputs, v.points, out=v.sums)
        target = out[: v.covered].view(v.tiles)
        if residual is None:
            target.copy_(v.ordered)
        else:
            torch.add(residual[: v.covered].view(v.tiles), v.ordered, out=target)


class DirectConv:
    """As the plain sum, channels last."""

    def __init__(self, weight: Tensor, bias: Tensor, dilation: int) -> None:
        self.dilation = dilation
        self.reach = (weight.shape[2] - 1) * dilation // 2
        self.slack = 0
        self._weight = weight[:, :, None].contiguous(memory_format=torch.channels_last)
        self._bias = bias.clone()

    def __call__(self, x: Tensor, rows: int, out: Tensor, work: Workspace, residual: Tensor | None = None) -> None:
        """See ``RowConv``."""
        active = work.get("a", rows + 2 * self.reach, x.shape[1])
        torch._C._nn.leaky_relu(x[: len(active)], SLOPE, out=active)
        image = active[None, None].permute(0, 3, 1, 2)
        made = F.conv2d(image, self._weight, self._bias, dilation=(1, self.dilation)).permute(0, 2, 3, 1)[0, 0]
        if residual is None:
            out[:rows] = made
        else:
            torch.add(residual[:rows], made, out=out[:rows])


@cache
def matrices(size: int) -> tuple[Tensor, Tensor, Tensor]:
    """Outputs ``[m, n]``, filters ``[n, r]``, inputs ``[n, n]`` in float64, for a filter of ``r = size`` taps.

    ``y[i] = sum_j h[j] x[i + j]`` equals ``outputs @ ((filters @ h) * (inputs @ x))``. The last point is infinity.
    """
    total = OUTPUTS + size - 1
    points = _POINTS[: total - 1]
    outputs = [[point**i for point in points] + [Fraction(i == OUTPUTS - 1)] for i in range(OUTPUTS)]
    filters, inputs = [], []
    for point in points:
        others = [other for other in points if other != point]
        scale = math.prod((point - other for other in others), start=Fraction(1))
        filters.append([point**j / scale for j in range(size)])
        inputs.append([*_with_roots(others), Fraction(0)])
    filters.append([Fraction(j == size - 1) for j in range(size)])
    inputs.append(_with_roots(points))
    return _tensor(outputs), _tensor(filters), _tensor(inputs)


def _with_roots(roots: Sequence[Fraction]) -> list[Fraction]:
    """Coefficients, constant first, of the monic polynomial with these roots."""
    coefficients = [Fraction(1)]
    for root in roots:
        shifted = [Fraction(0), *coefficients]
        coefficients = [high - root * low for high, low in zip(shifted, [*coefficients, Fraction(0)], strict=True)]
    return coefficients


def _tensor(rows: Sequence[Sequence[Fraction]]) -> Tensor:
    return torch.tensor([[float(value) for value in row] for row in rows], dtype=torch.float64)
