"""The synthesizer of RVC and Applio voices: one class for v1 and v2, with and without F0, and every decoder."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from rocktop_ray.models.rvc.config import SynthesizerConfig
from rocktop_ray.models.rvc.flow import Flow, PosteriorEncoder
from rocktop_ray.models.rvc.hifigan import HifiganDecoder
from rocktop_ray.models.rvc.layers import embedding
from rocktop_ray.models.rvc.prior_encoder import PriorEncoder
from rocktop_ray.models.rvc.refinegan import RefineganDecoder


class Synthesizer(nn.Module):
    """Prior encoder, flow, decoder and speaker embedding; with ``training``, also the posterior encoder.

    Convolutions that files store under weight normalisation hold plain weights here (``weights.fold``).
    """

    def __init__(self, config: SynthesizerConfig, *, training: bool = False) -> None:
        super().__init__()
        self.config = config
        self.enc_p = PriorEncoder(config)
        if training:
            self.enc_q = PosteriorEncoder(config)
        self.flow = Flow(config)
        self.dec = RefineganDecoder(config) if config.decoder == "refinegan" else HifiganDecoder(config)
        self.emb_g = embedding(config.speakers, config.gin_channels)

    def speaker(self, ids: Tensor) -> Tensor:
        """Speaker numbers ``[batch]`` -> conditioning ``[batch, gin, 1]``."""
        return self.emb_g(ids)[..., None]

    def latent(self, units: Tensor, pitch: Tensor | None, speaker: Tensor, noise: Tensor | None = None) -> Tensor:
        """Units ``[batch, frames, dim]``, pitch bins ``[batch, frames]`` -> latent ``[batch, latent, frames]``.

        ``noise`` is the prior's draw, already scaled by the temperature, of the shape of the result; None means none.
        """
        mean, log_scale = self.enc_p(units, pitch)
        sample = mean if noise is None else mean + log_scale.exp() * noise
        return self.flow.inverse(sample, speaker)


def build(config: SynthesizerConfig, *, training: bool = False) -> Synthesizer:
    """A synthesizer on the meta device: names and shapes, no memory."""
    with torch.device("meta"):
        return Synthesizer(config, training=training)
