"""The speaker encoder of "Generalized End-to-End Loss for Speaker Verification" (Wan et al. 2018; Resemblyzer)."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn


class GE2E(nn.Module):
    """Three LSTM layers over mel frames; the last state, projected and rectified, points at the voice.

    Args:
        mels: bands of a frame.
        hidden: width of the LSTM.
        dim: width of the embedding.
        layers: LSTM layers.
    """

    def __init__(self, mels: int = 40, hidden: int = 256, dim: int = 256, layers: int = 3) -> None:
        super().__init__()
        self.lstm = nn.LSTM(mels, hidden, layers, batch_first=True)
        self.linear = nn.Linear(hidden, dim)

    def forward(self, mel: Tensor) -> Tensor:
        """Mel power ``[batch, frames, mels]`` -> embeddings ``[batch, dim]``, >= 0, of length 1."""
        _, (state, _) = self.lstm(mel)
        return F.normalize(F.relu(self.linear(state[-1])), dim=1)
