"""The encoder half of Whisper (Radford et al. 2022, "Robust Speech Recognition via Large-Scale Weak Supervision").

Audio ``[samples]`` at 16 kHz -> log-mel ``[80, samples // 160]`` at 100/s -> features ``[ceil(mel / 2), width]`` at
50/s. Feature i is centred on sample 320 * i. The original always pads to 30 s; here the input keeps its own length.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rocktop_ray.audio.mel import mel_filters
from rocktop_ray.protocols import ENCODER_RATE

MEL_WINDOW = 400
MEL_HOP = 160
MELS = 80
MAX_FRAMES = 1500
"""Features that the network sees at most: 30 s."""


@dataclass(frozen=True)
class WhisperConfig:
    """Sizes of an encoder: ``base`` is 512 wide with 8 heads and 6 layers, ``tiny`` 384, 6 and 4."""

    width: int
    heads: int
    layers: int


class LogMel(nn.Module):
    """Whisper's log-mel spectrogram: 25 ms Hann windows every 10 ms, 80 Slaney bands, 80 dB of range, about [-1, 1]."""

    window: Tensor
    bands: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("window", torch.hann_window(MEL_WINDOW), persistent=False)
        bands = mel_filters(ENCODER_RATE, MEL_WINDOW, MELS, 0, ENCODER_RATE / 2, htk=False)
        self.register_buffer("bands", torch.from_numpy(bands), persistent=False)

    def forward(self, audio: Tensor) -> Tensor:
        """Audio ``[samples]`` (more than 200) -> ``[80, samples // 160]``; the take's loudest bin sets the floor."""
        spectrum = torch.stft(audio, MEL_WINDOW, MEL_HOP, window=self.window, return_complex=True)[:, :-1]
        power = spectrum.real.square() + spectrum.imag.square()
        log = torch.log10((self.bands @ power).clamp_min(1e-10))
        return (torch.maximum(log, log.max() - 8.0) + 4.0) / 4.0


def sinusoids(length: int, width: int) -> Tensor:
    """Sinusoidal positions ``[length, width]``: sines in the first half, cosines in the second, periods to 20,000 pi.

    Rounded to float16 precision, as the published checkpoints hold them (this is visible in the features).
    """
    step = math.log(10_000) / (width // 2 - 1)
    angles = torch.arange(length, dtype=torch.float64)[:, None] * torch.exp(
        -step * torch.arange(width // 2, dtype=torch.float64)
    )
    return torch.cat([angles.sin(), angles.cos()], dim=1).half().float()


class Block(nn.Module):
    """Pre-norm self-attention and feed-forward layer. ``[batch, frames, width]`` in and out."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.attention_norm = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.ffn_norm = nn.LayerNorm(width)
        self.ffn_in = nn.Linear(width, 4 * width)
        self.ffn_out = nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        """One layer."""
        batch, frames, width = x.shape
        qkv = self.qkv(self.attention_norm(x)).view(batch, frames, 3, self.heads, width // self.heads)
        query, key, value = qkv.permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(query, key, value)
        x = x + self.out(mixed.transpose(1, 2).reshape(batch, frames, width))
        return x + self.ffn_out(F.gelu(self.ffn_in(self.ffn_norm(x))))


class WhisperEncoderNet(nn.Module):
    """Two convolutions (the second halves the rate), sinusoidal positions, ``layers`` blocks and a final norm."""

    positions: Tensor

    def __init__(self, config: WhisperConfig) -> None:
        super().__init__()
        self.config = config
        self.conv1 = nn.Conv1d(MELS, config.width, 3, padding=1)
        self.conv2 = nn.Conv1d(config.width, config.width, 3, stride=2, padding=1)
        self.blocks = nn.ModuleList(Block(config.width, config.heads) for _ in range(config.layers))
        self.norm = nn.LayerNorm(config.width)
        self.register_buffer("positions", sinusoids(MAX_FRAMES, config.width), persistent=False)

    def forward(self, mel: Tensor) -> Tensor:
        """Log-mel ``[batch, 80, mel frames]``, at most 3000 -> features ``[batch, ceil(mel frames / 2), width]``."""
        x = F.gelu(self.conv2(F.gelu(self.conv1(mel)))).transpose(1, 2)
        x = x + self.positions[: x.shape[1]]
        for block in self.blocks:
            x = block(x)
        normed: Tensor = self.norm(x)
        return normed
