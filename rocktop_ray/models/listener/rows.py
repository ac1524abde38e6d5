"""Linear layers for few rows, where what counts is how long it takes to read the weights.

A hop of 40 ms is four rows, so all weights of a network are read for every hop: 19 MB for those of the bundle's
students. Other processes have had the caches in between, and then a product of 4 rows and 256 x 512 weights takes 77 us
as float32 and 53 us as float16 (26 and 21 us back to back; 2 cores of a shared Xeon).
"""

from __future__ import annotations

import warnings

import torch
from torch import Tensor, nn

FEW = 64
"""Rows up to which products and sums are faster than a layer's usual form."""
_HALF_ROWS = 16
"""Rows up to which weights as float16 are faster than as float32."""


class RowLinear(nn.Linear):
    """A linear layer that can get ready for few rows; the results stay the same up to the rounding of sums."""

    _settled: tuple[Tensor | None, Tensor, Tensor] | None = None

    def settle(self) -> None:
        """Get ready for few rows; the weights may not change from here on."""
        weight, bias = self.weight.detach(), self.bias.detach()
        # Inputs first: else each product would turn the weights round anew.
        self._settled = _halved(weight, bias), weight.T.contiguous(), bias

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
            return torch.fbgemm_linear_fp16_weight_fp32_activation(x, halved, bias)
        return torch.addmm(bias, x, turned)


def _halved(weight: Tensor, bias: Tensor) -> Tensor | None:
    """The weights as float16 for products with float32, if that loses nothing: student files hold float16. Else None,
    as on processors without such products, and with a torch that has dropped them.
    """
    if "fbgemm" not in torch.backends.quantized.supported_engines or weight.device.type != "cpu":
        return None
    if not hasattr(torch, "fbgemm_linear_fp16_weight_fp32_activation") or not torch.equal(
        weight.half().float(), weight
    ):
        return None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that it is deprecated
        halved = torch.fbgemm_pack_gemm_matrix_fp16(weight)
        torch.fbgemm_linear_fp16_weight_fp32_activation(torch.zeros(1, weight.shape[1]), halved, bias)
    return halved
