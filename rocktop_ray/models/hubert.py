"""HuBERT (Hsu et al. 2021, "Self-Supervised Speech Representation Learning by Masked Prediction of Hidden Units").

The network of HuBERT base, ContentVec and their relatives, for inference: no masking, no dropout, weight norm folded.
Audio ``[samples]`` at 16 kHz -> hidden states ``[frames, width]``; with the usual strides a frame is 320
samples and needs 400. Layouts are frames first (``[frames, channels]``) throughout, so that the strided
convolutions are plain matrix products without copies.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

_TILE = 48
"""Frames of the front end at a time: 6 MB in its widest layer."""


@dataclass(frozen=True)
class HubertConfig:
    """Sizes and variants, named as in transformers' ``config.json``. The defaults are HuBERT base."""

    hidden_size: int = 768
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    intermediate_size: int = 3072
    conv_dim: tuple[int, ...] = (512,) * 7
    conv_kernel: tuple[int, ...] = (10, 3, 3, 3, 3, 2, 2)
    conv_stride: tuple[int, ...] = (5, 2, 2, 2, 2, 2, 2)
    conv_bias: bool = False
    feat_extract_norm: str = "group"
    """``group``: the first convolution is normalised over time; ``layer``: every one, over channels."""
    feat_proj_layer_norm: bool = True
    num_conv_pos_embeddings: int = 128
    num_conv_pos_embedding_groups: int = 16
    do_stable_layer_norm: bool = False
    """Norms before attention and feed-forward (HuBERT large) rather than after."""
    layer_norm_eps: float = 1e-5
    classifier_proj_size: int | None = None
    """Width of the final projection, None without."""

    def frames(self, samples: int) -> int:
        """Frames of so many samples; 0 or less when they are too few."""
        for kernel, stride in zip(self.conv_kernel, self.conv_stride, strict=True):
            samples = (samples - kernel) // stride + 1
        return samples

    @property
    def receptive_field(self) -> int:
        """Samples that one frame needs."""
        samples = 1
        for kernel, stride in zip(reversed(self.conv_kernel), reversed(self.conv_stride), strict=True):
            samples = (samples - 1) * stride + kernel
        return samples


class Convolution(nn.Module):
    """One strided convolution of the front end, its norm, and GELU: ``[time, channels]`` in and out."""

    def __init__(self, config: HubertConfig, index: int) -> None:
        super().__init__()
        self.stride = config.conv_stride[index]
        inputs = 1 if index == 0 else config.conv_dim[index - 1]
        width = config.conv_dim[index]
        self.weight = nn.Parameter(torch.empty(config.conv_kernel[index], inputs, width))
        self.bias = nn.Parameter(torch.empty(width)) if config.conv_bias else None
        self.norm: nn.Module | None = None
        if config.feat_extract_norm == "layer":
            self.norm = nn.LayerNorm(width)
        elif index == 0:
            self.norm = nn.GroupNorm(width, width)

    def weights(self, audio: Tensor) -> tuple[Tensor, Tensor | None]:
        """The convolution's weight and bias for a take ``[samples]``, with the norm over its time folded in, if any.

        Such a norm is on the first convolution, whose mean and variance follow from those of the input windows, so no
        pass over the widest array of the network is needed. Statistics are in float64; a bias would cancel.
        """
        if not isinstance(self.norm, nn.GroupNorm):
            return self.weight, self.bias
        return self.folded(*self.moments(audio))

    def moments(self, audio: Tensor) -> tuple[Tensor, Tensor]:
        """Mean ``[taps]`` and covariance ``[taps, taps]`` of the input windows of a take ``[samples]``, in float64."""
        windows = audio.unfold(0, len(self.weight), self.stride).double()
        centre = windows.mean(0)
        return centre, (windows.T @ windows) / len(windows) - torch.outer(centre, centre)

    def folded(self, centre: Tensor, spread: Tensor) -> tuple[Tensor, Tensor]:
        """Weight and bias for windows of that mean and covariance; only where the norm is over time."""
        assert isinstance(self.norm, nn.GroupNorm)
        taps = self.weight[:, 0].double()
        scale = self.norm.weight * torch.rsqrt((taps * (spread @ taps)).sum(0).clamp_min(0) + self.norm.eps)
        return (taps * scale).float()[:, None], (self.norm.bias - (centre @ taps) * scale).float()

    def forward(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """One layer, with what ``weights`` gives."""
        y = strided_convolution(x, weight, bias, self.stride)
        return F.gelu(self.norm(y) if isinstance(self.norm, nn.LayerNorm) else y)


def strided_convolution(x: Tensor, weight: Tensor, bias: Tensor | None, stride: int) -> Tensor:
    """``[time, channels]`` with ``weight [kernel, channels, width]`` -> ``[(time - kernel) // stride + 1, width]``.

    The taps are taken ``stride`` at a time: such a group is a view of the input as ``[time / stride, stride *
    channels]``, so the convolution is a sum of matrix products without copies.
    """
    time, channels = x.shape
    kernel, _, width = weight.shape
    frames = (time - kernel) // stride + 1
    x = x.contiguous()
    group = kernel if channels == 1 else stride  # thin windows: one copy of them is cheaper than several products
    y = x.new_empty(frames, width) if bias is None else bias.repeat(frames, 1)
    for tap in range(0, kernel, group):
        taps = min(group, kernel - tap)
        start = x.storage_offset() + tap * channels
        view = x.as_strided((frames, taps * channels), (stride * channels, 1), start)
        part = weight[tap : tap + taps].view(taps * channels, width)
        y.addmm_(view, part, beta=0 if tap == 0 and bias is None else 1)
    return y


class FrontEnd(nn.Module):
    """The convolutions: audio ``[samples]`` -> features ``[frames, conv_dim[-1]]``, some frames at a time.

    A tile of frames needs only its own samples, and stays in the cache through all layers; the result is the same.
    """

    def __init__(self, config: HubertConfig) -> None:
        super().__init__()
        self.config = config
        self.convolutions = nn.ModuleList(Convolution(config, index) for index in range(len(config.conv_dim)))

    def forward(self, audio: Tensor) -> Tensor:
        """All frames of the take."""
        return self.frames(audio, [convolution.weights(audio) for convolution in self.stack])

    @property
    def stack(self) -> list[Convolution]:
        """The convolutions in order."""
        return [cast(Convolution, convolution) for convolution in self.convolutions]

    def frames(self, audio: Tensor, weights: Sequence[tuple[Tensor, Tensor | None]]) -> Tensor:
        """All frames of the audio, with what each convolution's ``weights`` gave."""
        frames, hop = self.config.frames(len(audio)), prod(self.config.conv_stride)
        tiles = []
        for start in range(0, frames, _TILE):
            stop = min(start + _TILE, frames)
            x = audio[start * hop : (stop - 1) * hop + self.config.receptive_field, None]
            for convolution, (weight, bias) in zip(self.stack, weights, strict=True):
                x = convolution(x, weight, bias)
            tiles.append(x)
        return torch.cat(tiles)


class Positions(nn.Module):
    """Convolutional positions: a wide grouped convolution over time, then GELU. ``[frames, width]``."""

    def __init__(self, config: HubertConfig) -> None:
        super().__init__()
        kernel = config.num_conv_pos_embeddings
        self.even = kernel % 2 == 0
        groups = config.num_conv_pos_embedding_groups
        self.conv = nn.Conv1d(config.hidden_size, config.hidden_size, kernel, padding=kernel // 2, groups=groups)

    def forward(self, x: Tensor) -> Tensor:
        """What to add to the frames."""
        y = self.conv(x.T[None])[0]
        if self.even:
            y = y[:, :-1]
        return F.gelu(y).T


class StoredLinear(nn.Linear):
    """A linear layer whose weight may stay in the half precision that it is published in.

    It is widened for each product: the same result, with half the memory, for one more pass over the weight.
    """

    def forward(self, x: Tensor) -> Tensor:
        """``[frames, in]`` -> ``[frames, out]``."""
        return F.linear(x, self.weight.to(x.dtype), self.bias)


class Layer(nn.Module):
    """Self-attention and feed-forward, norms after (or before, if stable). ``[frames, width]`` in and out."""

    def __init__(self, config: HubertConfig) -> None:
        super().__init__()
        width = config.hidden_size
        self.heads = config.num_attention_heads
        self.stable = config.do_stable_layer_norm
        self.qkv = StoredLinear(width, 3 * width)
        self.out = StoredLinear(width, width)
        self.attention_norm = nn.LayerNorm(width, config.layer_norm_eps)
        self.ffn_in = StoredLinear(width, config.intermediate_size)
        self.ffn_out = StoredLinear(config.intermediate_size, width)
        self.ffn_norm = nn.LayerNorm(width, config.layer_norm_eps)

    def forward(self, x: Tensor) -> Tensor:
        """One layer."""
        if self.stable:
            x = x + self._attend(self.attention_norm(x))
            return x + self._feed(self.ffn_norm(x))
        x = self.attention_norm(x + self._attend(x))
        normed: Tensor = self.ffn_norm(x + self._feed(x))
        return normed

    def _attend(self, x: Tensor) -> Tensor:
        frames, width = x.shape
        query, key, value = self.qkv(x).view(frames, 3, self.heads, width // self.heads).permute(1, 2, 0, 3)
        mixed = F.scaled_dot_product_attention(query[None], key[None], value[None])[0]
        attended: Tensor = self.out(mixed.transpose(0, 1).reshape(frames, width))
        return attended

    def _feed(self, x: Tensor) -> Tensor:
        fed: Tensor = self.ffn_out(F.gelu(self.ffn_in(x)))
        return fed


class Hubert(nn.Module):
    """Front end, projection, positions, layers and, for v1 units, the final projection."""

    def __init__(self, config: HubertConfig) -> None:
        super().__init__()
        self.config = config
        self.front_end = FrontEnd(config)
        features = config.conv_dim[-1]
        self.feature_norm = nn.LayerNorm(features, config.layer_norm_eps) if config.feat_proj_layer_norm else None
        self.projection = nn.Linear(features, config.hidden_size)
        self.positions = Positions(config)
        self.norm = nn.LayerNorm(config.hidden_size, config.layer_norm_eps)
        self.layers = nn.ModuleList(Layer(config) for _ in range(config.num_hidden_layers))
        proj = config.classifier_proj_size
        self.final_proj = nn.Linear(config.hidden_size, proj) if proj else None

    def forward(self, audio: Tensor, layer: int) -> Tensor:
        """Audio ``[samples]`` -> the output of ``layer`` (1 is the first) ``[frames, hidden_size]``."""
        x = self.front_end(audio)
        if self.feature_norm is not None:
            x = self.feature_norm(x)
        x = self.projection(x)
        x = x + self.positions(x)
        if not self.config.do_stable_layer_norm:
            x = self.norm(x)
        for block in self.layers[:layer]:
            x = block(x)
        if self.config.do_stable_layer_norm and layer == len(self.layers):
            x = self.norm(x)
        return x
