"""Linear layers for a few rows at a time, where reading the weights is most of the cost."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class PackedLinear:
    """A linear layer's weights as a short block wants them.

    Weights that are half-precision numbers, as published ones often are, stay so in memory, in fbgemm's order: half of
    the bytes to read, and the same product in float32. Others stay as they are.
    """

    def __init__(self, layer: nn.Linear) -> None:
        weight, bias = layer.weight.detach().float(), layer.bias.detach().float()
        self._packed, self._weight, self._bias = None, weight, bias
        if "fbgemm" in torch.backends.quantized.supported_engines and torch.equal(weight, weight.half().float()):
            self._packed = torch.ops.quantized.linear_prepack_fp16(weight, bias)
            self._weight = weight[:0]

    def __call__(self, x: Tensor) -> Tensor:
        """``[.., in]`` -> ``[.., out]``."""
        if self._packed is None:
            return F.linear(x, self._weight, self._bias)
        made: Tensor = torch.ops.quantized.linear_dynamic_fp16(x.contiguous(), self._packed)
        return made
