"""Causal blocks, for a whole and for a stream.

A block maps rows to as many rows; row j hears rows up to j. The whole is one step from the state before the first row,
so streaming equals the whole for every block size, up to the rounding of sums.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rocktop_ray.models.packed_linear import FEW, RowLinear

_PART = 256


class _Settled(NamedTuple):
    """A block's weights as its step over few rows wants them at hand."""

    taps: Tensor
    bias: Tensor
    norm: Tensor
    shift: Tensor
    scale: Tensor


class CausalBlock(nn.Module):
    """A ConvNeXt block in one dimension (Liu et al. 2022), causal.

    Depthwise convolution over the last ``(kernel - 1) * dilation + 1`` rows, then a two-layer perceptron per row, on a
    residual path that may be ``delay`` rows late: then the result is that of the row ``delay`` earlier, and the
    convolution has heard so many rows after it.
    """

    def __init__(self, width: int, expansion: int, kernel: int, dilation: int, delay: int = 0) -> None:
        super().__init__()
        self.reach = (kernel - 1) * dilation
        """Rows before a block of rows that it hears."""
        if not 0 <= delay <= self.reach:
            raise ValueError(f"delay {delay} is not in 0 .. {self.reach}")
        self.delay = delay
        self.depthwise = nn.Conv2d(width, width, (1, kernel), dilation=(1, dilation), groups=width)
        self.norm = nn.LayerNorm(width)
        self.widen = RowLinear(width, width * expansion)
        self.narrow = RowLinear(width * expansion, width)
        self.scale = nn.Parameter(torch.full((width,), 0.2))
        self._settled: _Settled | None = None

    def settle(self) -> None:
        """Get ready for short blocks; the weights may not change from here on."""
        self.widen.settle()
        self.narrow.settle()
        taps = self.depthwise.weight.detach()[:, 0, 0].T.contiguous()
        found = [self.get_parameter(name).detach() for name in ("depthwise.bias", "norm.weight", "norm.bias", "scale")]
        self._settled = _Settled(taps, *found)
        # Looking up a module's layers takes longer than some sums do.
        self._perceptron = self.widen.few, self.narrow.few
        self._cut = self.depthwise.kernel_size[1], self.depthwise.dilation[1], self.norm.eps

    def forward(self, held: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        """Remembered ``[batch, reach, width]``, rows ``[batch, n, width]`` -> remembered, rows."""
        rows = x.shape[1]
        joined = torch.cat([held, x], 1)
        # In two dimensions: for a depthwise convolution in one, there is no fast path.
        y = self.depthwise(joined.transpose(1, 2)[:, :, None])[:, :, 0].transpose(1, 2)
        y = self.narrow(F.gelu(self.widen(self.norm(y))))
        past = joined[:, self.reach - self.delay :][:, :rows]
        return joined[:, rows:], torch.addcmul(past, self.scale, y)

    def few(self, held: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        """The same for up to ``FEW`` rows in all, once it is settled: a convolution would take longer to set up than
        its sums take, and a call of a layer longer than a product.
        """
        assert self._settled is not None
        taps, bias, norm, shift, scale = self._settled
        (widen, narrow), (kernel, dilation, eps) = self._perceptron, self._cut
        batch, rows, width = x.shape
        joined = torch.cat((held, x), 1)
        heard = joined.as_strided((batch, rows, kernel, width), (joined.stride(0), width, dilation * width, 1))
        y = torch.layer_norm(torch.sum(heard * taps, 2).add_(bias), (width,), norm, shift, eps)
        y = narrow(_gelu(widen(y.view(-1, width)))).view(batch, rows, width)
        past = joined.narrow(1, self.reach - self.delay, rows)
        return joined.narrow(1, rows, self.reach), torch.addcmul(past, scale, y)


def _gelu(x: Tensor) -> Tensor:
    """As ``F.gelu`` to the rounding of sums, which for so few rows takes longer: it sets up a kernel each time."""
    half = x * 0.5
    return torch.addcmul(half, half, torch.erf(x * math.sqrt(0.5)))


class CausalStack(nn.Module):
    """Blocks one after the other; all that they remember lies in one tensor, block behind block."""

    def __init__(
        self, width: int, expansion: int, kernel: int, dilations: tuple[int, ...], delays: tuple[int, ...] = ()
    ) -> None:
        super().__init__()
        delays = (*delays, *(0 for _ in dilations))[: len(dilations)]
        self.blocks = nn.ModuleList(
            CausalBlock(width, expansion, kernel, dilation, delay)
            for dilation, delay in zip(dilations, delays, strict=True)
        )
        self.lag = sum(delays)
        """Rows by which what comes out is behind what goes in."""
        self._reaches = [block.reach for block in self._each()]
        self._settled: list[CausalBlock] = []
        self._width = width

    def settle(self) -> None:
        """Get ready for short blocks; the weights may not change from here on."""
        for block in self._each():
            block.settle()
        self._settled = self._each()

    def begin(self) -> Tensor:
        """What the blocks remember before the first row: ``[rows, width]``."""
        return torch.zeros(sum(self._reaches), self._width)

    def forward(self, held: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        """Remembered ``[batch, rows, width]`` and rows ``[batch, n, width]`` -> remembered, rows."""
        few = len(self._settled) > 0 and x.shape[0] * x.shape[1] <= FEW
        kept = []
        for block, before in zip(self._settled or self._each(), held.split_with_sizes(self._reaches, 1), strict=True):
            after, x = block.few(before, x) if few else block(before, x)
            kept.append(after)
        return torch.cat(kept, 1), x

    def _each(self) -> list[CausalBlock]:
        return [block for block in self.blocks if isinstance(block, CausalBlock)]


def settle(net: nn.Module) -> None:
    """Get a network's stacks and linear layers ready for few rows; its weights may not change from here on."""
    for part in net.modules():
        if isinstance(part, CausalStack | RowLinear):
            part.settle()


def stacked(states: list[tuple[Tensor, ...]]) -> tuple[Tensor, ...]:
    """Tensors of several streams, one tuple each -> one tuple, with the streams as the first dimension."""
    if len(states) == 1:
        return tuple(tensor[None] for tensor in states[0])
    return tuple(torch.stack(tensors) for tensors in zip(*states, strict=True))


def apart(tensors: tuple[Tensor, ...]) -> list[tuple[Tensor, ...]]:
    """The other way round; every stream's tensors stand on their own."""
    return [tuple(tensor[place].clone() for tensor in tensors) for place in range(len(tensors[0]))]


class LeakyMean(nn.Module):
    """Mean of the rows so far, those long ago counting less: weights fall by e in ``rows`` rows.

    State: sum ``[width]`` with the sum of the weights as its last element.
    """

    weights: Tensor
    fade: Tensor

    def __init__(self, rows: float) -> None:
        super().__init__()
        keep = 1.0 - 1.0 / rows
        age = torch.arange(_PART)[:, None] - torch.arange(_PART)[None]
        weights = torch.where(age >= 0, keep ** age.clamp_min(0).double(), 0.0)
        self.register_buffer("weights", weights.float(), persistent=False)
        self.register_buffer("fade", (keep ** torch.arange(1, _PART + 1).double()).float()[:, None], persistent=False)

    def begin(self, width: int) -> Tensor:
        """Before the first row: ``[width + 1]``."""
        return torch.zeros(width + 1)

    def forward(self, held: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        """Sums ``[batch, width + 1]``, rows ``[batch, n, width]`` -> sums, means ``[batch, n, width]``."""
        means = []
        for part in x.split(_PART, 1):
            rows = part.shape[1]
            sums = self.weights[:rows, :rows] @ F.pad(part, (0, 1), value=1.0) + self.fade[:rows] * held[:, None]
            means.append(sums[..., :-1] / sums[..., -1:])
            held = sums[:, -1]
        return held, torch.cat(means, 1)
