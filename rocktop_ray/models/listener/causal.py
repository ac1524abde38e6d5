"""Causal blocks whose whole form and streaming form are the same code.

A block maps rows to as many rows; row j hears rows up to j. The whole form is one step from the state before the first
row, so streaming equals the whole for every block size, up to the rounding of sums.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

_FEW = 64
"""Rows up to which products and sums are faster than a convolution's set-up."""
_PART = 256


class _Settled(NamedTuple):
    """A block's weights as few rows want them: inputs first, else each product would turn them round anew."""

    taps: Tensor
    bias: Tensor
    widen: Tensor
    narrow: Tensor
    widen_bias: Tensor
    narrow_bias: Tensor


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
        self.widen = nn.Linear(width, width * expansion)
        self.narrow = nn.Linear(width * expansion, width)
        self.scale = nn.Parameter(torch.full((width,), 0.2))
        self._settled: _Settled | None = None

    def settle(self) -> None:
        """Get ready for short blocks; the weights may not change from here on."""
        turned = [layer.weight.detach().T.contiguous() for layer in (self.widen, self.narrow)]
        bias = [layer.bias.detach() for layer in (self.widen, self.narrow)]
        taps = self.depthwise.weight.detach()[:, 0, 0].T.contiguous()
        self._settled = _Settled(taps, self.get_parameter("depthwise.bias").detach(), *turned, *bias)

    def begin(self) -> Tensor:
        """What the block remembers before the first row, ``[reach, width]``."""
        return torch.zeros(self.reach, self.norm.weight.shape[0])

    def forward(self, held: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        """Remembered ``[batch, reach, width]``, rows ``[batch, n, width]`` -> remembered, rows."""
        rows = x.shape[1]
        joined = torch.cat([held, x], 1)
        y = self._shaped(self.norm(self._filtered(joined, rows)))
        past = joined[:, self.reach - self.delay :][:, :rows]
        return joined[:, rows:], torch.addcmul(past, self.scale, y)

    def _filtered(self, joined: Tensor, rows: int) -> Tensor:
        """The depthwise convolution: ``[batch, reach + rows, width]`` -> ``[batch, rows, width]``."""
        batch, _, width = joined.shape
        settled = self._settled
        if settled is None or batch * rows > _FEW:
            # In two dimensions: for a depthwise convolution in one, there is no fast path.
            made: Tensor = self.depthwise(joined.transpose(1, 2)[:, :, None])[:, :, 0].transpose(1, 2)
            return made
        kernel, dilation = self.depthwise.kernel_size[1], self.depthwise.dilation[1]
        heard = joined.as_strided((batch, rows, kernel, width), (joined.stride(0), width, dilation * width, 1))
        return torch.sum(heard * settled.taps, 2) + settled.bias

    def _shaped(self, x: Tensor) -> Tensor:
        """The perceptron: ``[batch, rows, width]`` -> as much."""
        settled = self._settled
        if settled is None or x.shape[0] * x.shape[1] > _FEW:
            made: Tensor = self.narrow(F.gelu(self.widen(x)))
            return made
        wide = F.gelu(torch.addmm(settled.widen_bias, x.flatten(0, 1), settled.widen))
        return torch.addmm(settled.narrow_bias, wide, settled.narrow).view(x.shape)


class CausalStack(nn.Module):
    """Blocks one after the other, with what they remember as a tuple."""

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

    def settle(self) -> None:
        """Get ready for short blocks; the weights may not change from here on."""
        for block in self._each():
            block.settle()

    def begin(self) -> tuple[Tensor, ...]:
        """What the blocks remember before the first row: ``[reach, width]`` each."""
        return tuple(block.begin() for block in self._each())

    def forward(self, held: tuple[Tensor, ...], x: Tensor) -> tuple[tuple[Tensor, ...], Tensor]:
        """Remembered, each ``[batch, reach, width]``, and rows ``[batch, n, width]`` -> remembered, rows."""
        kept = []
        for block, before in zip(self._each(), held, strict=True):
            after, x = block(before, x)
            kept.append(after)
        return tuple(kept), x

    def _each(self) -> list[CausalBlock]:
        return [block for block in self.blocks if isinstance(block, CausalBlock)]


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
