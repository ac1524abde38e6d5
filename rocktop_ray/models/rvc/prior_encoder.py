"""The prior encoder (``enc_p``): content units and coarse pitch to the mean and log-scale of the latent frames.

A transformer with relative positions in a window of ten frames (Shaw et al. 2018, as in Glow-TTS and VITS).
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rocktop_ray.models.rvc.config import SynthesizerConfig
from rocktop_ray.models.rvc.layers import ChannelNorm, embedding, masked, random_table
from rocktop_ray.models.rvc.pitch_bins import BINS

WINDOW = 10
"""Frames to either side that have their own relative embedding."""
_QUERIES = 256  # queries per block: bounds the score matrix to [heads, 256, frames], which stays in cache
SLOPE = 0.1
_HIDDEN_SCORE = -1e4


class RelativeAttention(nn.Module):
    """Self-attention with relative key and value embeddings, computed in blocks of queries."""

    def __init__(self, channels: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.conv_q = nn.Conv1d(channels, channels, 1)
        self.conv_k = nn.Conv1d(channels, channels, 1)
        self.conv_v = nn.Conv1d(channels, channels, 1)
        self.conv_o = nn.Conv1d(channels, channels, 1)
        width = channels // heads
        self.emb_rel_k = nn.Parameter(random_table(1, 2 * WINDOW + 1, width, scale=width**-0.5))
        self.emb_rel_v = nn.Parameter(random_table(1, 2 * WINDOW + 1, width, scale=width**-0.5))
        self.drop = nn.Dropout(dropout)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """``[batch, channels, frames]`` -> the same shape; frames where ``mask`` is 0 are not attended to."""
        query = self._split(self.conv_q(x)) * (x.shape[1] // self.heads) ** -0.5
        key, value = self._split(self.conv_k(x)), self._split(self.conv_v(x))
        hidden = None if mask is None else (mask == 0)[:, :, None]
        blocks = [
            self._attend(query[:, :, start : start + _QUERIES], start, key, value, hidden)
            for start in range(0, x.shape[2], _QUERIES)
        ]
        attended = torch.cat(blocks, 2)
        return self.conv_o(attended.mT.reshape(x.shape))

    def attend_rows(self, query: Tensor, key: Tensor, value: Tensor, start: int, seen: Tensor | None) -> Tensor:
        """Projected queries ``[batch, n, channels]`` of frames ``start ..``, keys and values of all frames -> as many
        rows before the last projection. Frames where ``seen`` ``[batch, frames]`` is False are not attended to.
        """
        heads = [each.unflatten(2, (self.heads, -1)).transpose(1, 2) for each in (query, key, value)]
        hidden = None if seen is None else ~seen[:, None, None]
        mixed = self._attend(heads[0] * heads[0].shape[3] ** -0.5, start, heads[1], heads[2], hidden)
        return mixed.transpose(1, 2).flatten(2)

    def _split(self, x: Tensor) -> Tensor:
        """``[batch, channels, frames]`` -> ``[batch, heads, frames, width]``."""
        return x.unflatten(1, (self.heads, -1)).mT

    def _attend(self, query: Tensor, start: int, key: Tensor, value: Tensor, hidden: Tensor | None) -> Tensor:
        """Queries of frames ``start ..`` against all keys -> ``[batch, heads, queries, width]``."""
        scores = query @ key.mT
        frames = torch.arange(start, start + query.shape[2], device=query.device)[:, None]
        near = frames + torch.arange(-WINDOW, WINDOW + 1, device=query.device)
        inside = (near >= 0) & (near < key.shape[2])
        columns = near.clamp(0, key.shape[2] - 1).expand(*scores.shape[:2], -1, -1)
        scores = scores.scatter_add(3, columns, (query @ self.emb_rel_k[0].T) * inside)
        if hidden is not None:
            scores = scores.masked_fill(hidden, _HIDDEN_SCORE)
        weights = self.drop(scores.softmax(3))
        return weights @ value + (weights.gather(3, columns) * inside) @ self.emb_rel_v[0]


class FeedForward(nn.Module):
    """Two convolutions over time with a ReLU between them."""

    def __init__(self, channels: int, filter_channels: int, kernel: int, dropout: float) -> None:
        super().__init__()
        self.padding = ((kernel - 1) // 2, kernel // 2)
        self.conv_1 = nn.Conv1d(channels, filter_channels, kernel)
        self.conv_2 = nn.Conv1d(filter_channels, channels, kernel)
        self.drop = nn.Dropout(dropout)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """``[batch, channels, frames]`` -> the same shape."""
        x = self.drop(F.relu(self.conv_1(F.pad(masked(x, mask), self.padding))))
        return masked(self.conv_2(F.pad(masked(x, mask), self.padding)), mask)


class Transformer(nn.Module):
    """Attention and feed-forward layers, each normalised after its residual sum."""

    def __init__(self, config: SynthesizerConfig) -> None:
        super().__init__()
        channels, dropout, layers = config.hidden_channels, float(config.p_dropout), range(config.n_layers)
        self.attn_layers = nn.ModuleList(RelativeAttention(channels, config.n_heads, dropout) for _ in layers)
        self.norm_layers_1 = nn.ModuleList(ChannelNorm(channels) for _ in layers)
        self.ffn_layers = nn.ModuleList(
            FeedForward(channels, config.filter_channels, config.kernel_size, dropout) for _ in layers
        )
        self.norm_layers_2 = nn.ModuleList(ChannelNorm(channels) for _ in layers)
        self.drop = nn.Dropout(dropout)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """``[batch, channels, frames]`` -> the same shape."""
        x = masked(x, mask)
        layers = zip(self.attn_layers, self.norm_layers_1, self.ffn_layers, self.norm_layers_2, strict=True)
        for attention, norm_1, feed_forward, norm_2 in layers:
            x = norm_1(x + self.drop(attention(x, mask)))
            x = norm_2(x + self.drop(feed_forward(x, mask)))
        return masked(x, mask)


class PriorEncoder(nn.Module):
    """Content units, and coarse pitch if the voice uses F0, to the prior of the latent frames."""

    def __init__(self, config: SynthesizerConfig) -> None:
        super().__init__()
        self.emb_phone = nn.Linear(config.content_dim, config.hidden_channels)
        if config.uses_f0:
            self.emb_pitch = embedding(BINS, config.hidden_channels)
        self.uses_f0 = config.uses_f0
        self.encoder = Transformer(config)
        self.proj = nn.Conv1d(config.hidden_channels, 2 * config.inter_channels, 1)

    def forward(self, units: Tensor, pitch: Tensor | None, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Units ``[batch, frames, dim]``, pitch bins ``[batch, frames]`` -> mean and log-scale of the latent.

        Both are ``[batch, latent, frames]``. ``mask`` is ``[batch, 1, frames]``, 1 where a frame counts.
        """
        x = self.emb_phone(units)
        if self.uses_f0:
            if pitch is None:
                raise ValueError("this voice needs the pitch")
            x = x + self.emb_pitch(pitch)
        x = F.leaky_relu(x * math.sqrt(x.shape[2]), SLOPE)
        mean, log_scale = masked(self.proj(self.encoder(x.mT, mask)), mask).chunk(2, 1)
        return mean, log_scale
