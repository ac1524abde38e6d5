"""Linear layers for a few rows at a time, where reading the weights is most of the cost.

Weights that are half-precision numbers, as published ones and those of student files are, stay so in memory, in
fbgemm's order: half of the bytes to read, and the same product in float32. A hop of 40 ms is four rows, and other
processes have had the caches before it: then a product of 4 rows and 256 x 512 weights takes 77 us as float32 and
53 us as float16 (26 and 21 us back to back; 2 cores of a shared Xeon). The operation that does this with least effort
knows one thread only; large weights go through one that all of torch's threads share: 14 rows and 3072 x 768 weights
take 531 and 324 us on two threads, 537 and 618 on one.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

FEW = 64
"""Rows up to which products and sums are faster than a layer's usual form."""
_HALF_ROWS = 16
"""Rows up to which weights as float16 are faster than as float32, where both are at hand."""
_LARGE = 2**19
"""Weights beyond which threads share a product."""


def half_product(weight: Tensor, bias: Tensor) -> Callable[[Tensor], Tensor] | None:
    """``[rows, in]`` -> ``[rows, out]`` in float32, with the weights ``[out, in]`` as float16; None where that would
    lose something, and on processors without such products.
    """
    if "fbgemm" not in torch.backends.quantized.supported_engines or weight.device.type != "cpu":
        return None
    if not torch.equal(weight.half().float(), weight):
        return None
    if weight.numel() <= _LARGE and hasattr(torch, "fbgemm_linear_fp16_weight_fp32_activation"):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that it is deprecated; what follows takes 20 to 60 us longer
            halved = torch.fbgemm_pack_gemm_matrix_fp16(weight)
            torch.fbgemm_linear_fp16_weight_fp32_activation(torch.zeros(1, weight.shape[1]), halved, bias)
        return lambda x: torch.fbgemm_linear_fp16_weight_fp32_activation(x, halved, bias)
    packed = torch.ops.quantized.linear_prepack_fp16(weight, bias)
    return lambda x: torch.ops.quantized.linear_dynamic_fp16(x, packed)


class PackedLinear:
    """A layer for short blocks only: weights ``[out, in]`` as float16 where that is the same, else as they are."""

    def __init__(self, weight: Tensor, bias: Tensor) -> None:
        weight, bias = weight.detach().float().contiguous(), bias.detach().float().contiguous()
        halved = half_product(weight, bias)
        self.halved = halved is not None
        """Whether the weights are float16."""
        self._product = halved or (lambda x: F.linear(x, weight, bias))

    def __call__(self, x: Tensor) -> Tensor:
        """``[.., in]`` -> ``[.., out]``."""
        return self._product(x.flatten(0, -2).contiguous()).unflatten(0, x.shape[:-1])


class RowLinear(nn.Linear):
    """A layer that can get ready for few rows; the results stay the same up to the rounding of sums."""

    _settled: tuple[Callable[[Tensor], Tensor] | None, Tensor, Tensor] | None = None

    def settle(self) -> None:
        """Get ready for few rows; the weights may not change from here on."""
        weight, bias = self.weight.detach(), self.bias.detach()
        # Inputs first: else each product would turn the weights round anew.
        self._settled = half_product(weight, bias), weight.T.contiguous(), bias

    def forward(self, x: Tensor) -> Tensor:
        """``[.., in]`` -> ``[.., out]``"""
        if self._settled is None or x.numel() > FEW * self.in_features:
            return super().forward(x)
        return self.few(x.reshape(-1, self.in_features)).view(*x.shape[:-1], self.out_features)

    def few(self, x: Tensor) -> Tensor:
        """``[rows, in]`` -> ``[rows, out]`` for up to ``FEW`` rows, once it is settled."""
        assert self._settled is not None
        halved, turned, bias = self._settled
        if halved is not None and x.shape[0] <= _HALF_ROWS:
            return halved(x)
        return torch.addmm(bias, x, turned)
