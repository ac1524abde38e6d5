"""Convolutions of training on processors, as matrix products over rows ``[batch, rows, channels]``.

torch's own convolutions reorder their weights in each call, and wait for memory in their backward pass. Here signals
keep their channels last, so a strided convolution is one matrix product over windows of rows, and one of stride 1 goes
by Toom-Cook tiles (``models.rvc.short_conv``): 0.4 to 0.5 of the multiplications, forward, for the input's gradient and
for the weight's. The rounding error is four times a direct sum's.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from rocktop_ray.models.rvc.short_conv import OUTPUTS, matrices

_WHOLE = 5
"""Taps up to which a filter is one group; longer ones are cut into groups of ``OUTPUTS`` taps."""


def short_conv(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    *,
    dilation: int = 1,
    slope: float | None = None,
    residual: Tensor | None = None,
    spectra: Tensor | None = None,
) -> Tensor:
    """``conv(leaky_relu(x)) + bias + residual`` with stride 1 and as many rows out as in.

    ``x`` is ``[batch, rows, inputs]``, ``weight`` ``[outputs, inputs, taps]`` with odd taps, ``residual`` of the
    result's shape. Without ``slope`` nothing is rectified. ``spectra``, made before by ``spectra_of``, are taken for
    the weight, which then gets no gradient.
    """
    first = _taps_first(weight) if spectra is None else None
    made: Tensor = _Short.apply(x, first, spectra, bias, residual, weight.shape[2], dilation, slope)
    return made


def spectra_of(weight: Tensor) -> Tensor:
    """A weight ``[outputs, inputs, taps]`` at the points of its tiles: ``[groups, points, outputs, inputs]``."""
    return _spectra(_taps_first(weight), _size(weight.shape[2]))


def window_matrix(weight: Tensor) -> Tensor:
    """A weight ``[outputs, inputs, taps]`` as ``window_conv`` multiplies with it: ``[outputs, taps * inputs]``."""
    return weight.permute(0, 2, 1).flatten(1)


def window_conv(x: Tensor, matrix: Tensor, bias: Tensor | None, *, taps: int, stride: int, padding: int) -> Tensor:
    """A convolution of any stride: ``x`` ``[batch, rows, inputs]``, ``matrix`` of ``window_matrix``."""
    made: Tensor = _Windows.apply(x, matrix, bias, taps, stride, padding)
    return made.unflatten(0, (len(x), -1))


def run_conv(x: Tensor, weight: Tensor, bias: Tensor | None, *, rate: int, padding: int) -> Tensor:
    """A transposed convolution whose result has ``rate`` rows per row of ``x`` ``[batch, rows, inputs]``.

    ``weight`` is ``[inputs, outputs, taps]``. A row makes ``taps`` rows: runs of ``rate``, added up where they overlap.
    """
    batch, rows, _ = x.shape
    outputs, taps = weight.shape[1:]
    reads = -(-taps // rate)
    runs = F.pad(weight, (0, reads * rate - taps)).permute(0, 2, 1).reshape(len(weight), -1)
    made = (x @ runs).unflatten(2, (reads, rate * outputs))
    total = F.pad(made[:, :, 0], (0, 0, 0, reads))
    for run in range(1, reads):
        total = total + F.pad(made[:, :, run], (0, 0, run, reads - run))
    result = total.view(batch, -1, outputs)[:, padding : padding + rows * rate]
    return result if bias is None else result + bias


@dataclass(frozen=True)
class _Tiling:
    """How a batch of signals is cut into tiles of ``OUTPUTS * dilation`` rows."""

    batch: int
    rows: int
    inputs: int
    outputs: int
    taps: int
    dilation: int

    @property
    def size(self) -> int:
        """Taps per group."""
        return _size(self.taps)

    @property
    def groups(self) -> int:
        return -(-self.taps // self.size)

    @property
    def points(self) -> int:
        """Products per tile and group."""
        return OUTPUTS + self.size - 1

    @property
    def reach(self) -> int:
        return self.taps // 2 * self.dilation

    @property
    def tiles(self) -> int:
        """Per signal."""
        return -(-self.rows // (OUTPUTS * self.dilation))

    @property
    def padded(self) -> int:
        """Rows of a signal with its padding: its tiles, those that later groups read, one that tiles reach into."""
        return (self.tiles + self.groups) * OUTPUTS * self.dilation

    def blocks(self) -> Iterator[tuple[int, int, int, int]]:
        """First signal, signals, first tile, tiles: what stays in a cache, yet makes products worth their time."""
        wide = max(self.inputs, self.outputs)
        limit = max(2**16 // (wide * self.dilation), 2 * wide // self.dilation, 1)
        several = max(1, limit // self.tiles) if self.groups == 1 else 1
        for signal in range(0, self.batch, several):
            for tile in range(0, self.tiles, limit):
                yield signal, min(several, self.batch - signal), tile, min(limit, self.tiles - tile)


class _Short(torch.autograd.Function):
    """See ``short_conv``; the weight is ``[taps, outputs, inputs]``, or None if there are spectra."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor | None,
        ready: Tensor | None,
        bias: Tensor | None,
        residual: Tensor | None,
        taps: int,
        dilation: int,
        slope: float | None,
    ) -> Tensor:
        if weight is None:
            assert ready is not None
            spectra = ready
        else:
            spectra = _spectra(weight, _size(taps))
        cut = _Tiling(x.shape[0], x.shape[1], x.shape[2], spectra.shape[2], taps, dilation)
        sums, _, inputs = (each.to(x.dtype) for each in matrices(cut.size))
        padded = x.new_empty(cut.batch, cut.padded, cut.inputs)
        padded[:, : cut.reach].zero_()
        padded[:, cut.reach + cut.rows :].zero_()
        inner = padded[:, cut.reach : cut.reach + cut.rows]
        inner.copy_(x) if slope is None else torch._C._nn.leaky_relu(x, slope, out=inner)
        out = x.new_empty(cut.batch, cut.tiles * OUTPUTS * dilation, cut.outputs)
        tiled = out.view(cut.batch, cut.tiles, OUTPUTS, -1)
        for signal, signals, tile, tiles in cut.blocks():
            values = _values(padded, cut, inputs, signal, signals, tile, tiles)
            rows = signals * tiles * dilation
            products = torch.bmm(values[:, :rows], spectra[0].mT)
            for group in range(1, cut.groups):
                products.baddbmm_(values[:, group * dilation : group * dilation + rows], spectra[group].mT)
            made = (sums @ products.flatten(1)).view(OUTPUTS, signals, tiles, -1)
            target = tiled[signal : signal + signals, tile : tile + tiles]
            target.copy_(made.permute(1, 2, 0, 3))
            first, last = tile * OUTPUTS * dilation, min(cut.rows, (tile + tiles) * OUTPUTS * dilation)
            ready = out[signal : signal + signals, first:last]
            if bias is not None:
                ready.add_(bias)
            if residual is not None:
                ready.add_(residual[signal : signal + signals, first:last])
        ctx.cut, ctx.slope = cut, slope
        # What a frozen weight's gradient would need is not kept.
        kept = padded if ctx.needs_input_grad[1] or slope is not None else None
        ctx.save_for_backward(kept, spectra if ctx.needs_input_grad[0] else None)
        # A part of one signal is contiguous as it is, but a view may not be changed in place by whoever gets it.
        return out if out.shape[1] == cut.rows else out[:, : cut.rows].clone(memory_format=torch.contiguous_format)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (gradient,) = gradients
        padded, spectra = ctx.saved_tensors
        cut, slope = ctx.cut, ctx.slope
        dilation, length = cut.dilation, cut.tiles * OUTPUTS * cut.dilation
        wants_x, wants_weight, _, wants_bias, wants_residual = ctx.needs_input_grad[:5]
        sums, filters, inputs = (each.to(gradient.dtype) for each in matrices(cut.size))
        whole = gradient.contiguous() if length == cut.rows else F.pad(gradient, (0, 0, 0, length - cut.rows))
        tiled = whole.view(cut.batch, cut.tiles, OUTPUTS, -1)
        if wants_x:
            found = gradient.new_zeros(cut.batch, cut.tiles + cut.groups, OUTPUTS, dilation * cut.inputs)
        if wants_weight:
            slopes = gradient.new_empty(cut.groups, cut.points, cut.outputs, cut.inputs)
        for turn, (signal, signals, tile, tiles) in enumerate(cut.blocks()):
            part = tiled[signal : signal + signals, tile : tile + tiles].permute(2, 0, 1, 3).reshape(OUTPUTS, -1)
            rows, reads = signals * tiles * dilation, tiles + cut.groups - 1
            products = (sums.T @ part).view(cut.points, rows, cut.outputs)
            if wants_weight:
                values = _values(padded, cut, inputs, signal, signals, tile, tiles)
                for group in range(cut.groups):
                    shifted = values[:, group * dilation : group * dilation + rows]
                    slopes[group].baddbmm_(products.mT, shifted, beta=min(turn, 1))
            if wants_x:
                if cut.groups == 1:
                    back = torch.bmm(products, spectra[0])
                else:
                    back = products.new_zeros(cut.points, reads * dilation, cut.inputs)
                    for group in range(cut.groups):
                        back[:, group * dilation : group * dilation + rows].baddbmm_(products, spectra[group])
                rowwise = (inputs.T @ back.view(cut.points, -1)).view(cut.points, signals, reads, -1)
                home = found[signal : signal + signals]
                home[:, tile : tile + reads].add_(rowwise[:OUTPUTS].permute(1, 2, 0, 3))
                over = rowwise[OUTPUTS:].permute(1, 2, 0, 3)
                home[:, tile + 1 : tile + reads + 1, : over.shape[2]].add_(over)
        for_x = for_weight = None
        if wants_x:
            inside = slice(cut.reach, cut.reach + cut.rows)
            for_x = found.view(cut.batch, -1, cut.inputs)[:, inside]
            if slope is not None:  # the rectifier keeps the sign, so its result tells where it acted
                for_x = torch.ops.aten.leaky_relu_backward(for_x, padded[:, inside], slope, True)
        if wants_weight:
            for_weight = (filters.T @ slopes.flatten(2)).flatten(0, 1)[: cut.taps].view(-1, cut.outputs, cut.inputs)
        for_bias = gradient.sum((0, 1)) if wants_bias else None
        return for_x, for_weight, None, for_bias, gradient if wants_residual else None, None, None, None


def _size(taps: int) -> int:
    """Taps per group."""
    return taps if taps <= _WHOLE else OUTPUTS


def _taps_first(weight: Tensor) -> Tensor:
    """Taps are what the transforms mix; the matrices stay as they lie, which is far faster than to transpose them."""
    return weight.permute(2, 0, 1).contiguous()


def _spectra(weight: Tensor, size: int) -> Tensor:
    _, filters, _ = matrices(size)
    groups = -(-len(weight) // size)
    grouped = F.pad(weight, (0, 0, 0, 0, 0, groups * size - len(weight))).unflatten(0, (groups, size))
    return (filters.to(weight.dtype) @ grouped.flatten(2)).unflatten(2, weight.shape[1:])


def _values(padded: Tensor, cut: _Tiling, inputs: Tensor, signal: int, signals: int, tile: int, tiles: int) -> Tensor:
    """The tiles of a block, evaluated at the points: ``[points, rows, inputs]``; later groups read on behind."""
    wide, reads = cut.dilation * cut.inputs, tiles + cut.groups - 1
    step = OUTPUTS * wide
    start = signal * cut.padded * cut.inputs + tile * step
    overlapping = padded.as_strided((cut.points, signals, reads, wide), (wide, cut.padded * cut.inputs, step, 1), start)
    return (inputs @ overlapping.reshape(cut.points, -1)).view(cut.points, -1, cut.inputs)


class _Windows(torch.autograd.Function):
    """See ``window_conv``; the weight is ``[outputs, taps * inputs]``, the result ``[batch * rows, outputs]``."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, taps: int, stride: int, padding: int
    ) -> Tensor:
        batch, rows, _ = x.shape
        count = (rows + 2 * padding - taps) // stride + 1
        padded = F.pad(x, (0, 0, padding, padding))
        windows = _windows(padded, count, taps, stride)
        out = windows @ weight.T if bias is None else torch.addmm(bias, windows, weight.T)
        ctx.sizes = (batch, rows, count, taps, stride, padding)
        ctx.save_for_backward(padded if weight.requires_grad else None, weight)
        return out

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        padded, weight = ctx.saved_tensors
        batch, rows, count, taps, stride, padding = ctx.sizes
        (gradient,) = gradients
        for_x = for_weight = None
        if ctx.needs_input_grad[1]:
            for_weight = gradient.T @ _windows(padded, count, taps, stride)
        if ctx.needs_input_grad[0]:
            each = (gradient @ weight).view(batch, count, taps, -1)
            for_x = gradient.new_zeros(batch, rows + 2 * padding, each.shape[3])
            for tap in range(taps):
                for_x[:, tap : tap + (count - 1) * stride + 1 : stride].add_(each[:, :, tap])
            for_x = for_x[:, padding : padding + rows]
        for_bias = gradient.sum(0) if ctx.needs_input_grad[2] else None
        return for_x, for_weight, for_bias, None, None, None


def _windows(padded: Tensor, count: int, taps: int, stride: int) -> Tensor:
    """``[batch * count, taps * channels]``"""
    batch, rows, channels = padded.shape
    size = (batch, count, taps * channels)
    return padded.as_strided(size, (rows * channels, stride * channels, 1)).reshape(batch * count, -1)
